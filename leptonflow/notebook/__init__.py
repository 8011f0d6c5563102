"""What `leptonflow.open()` gives to a notebook: tables as data frames, champions, examples. It writes nothing.

How a table is queried, a champion predicts or an example is read belongs to the rooms below.
"""
