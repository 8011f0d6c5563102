"""What a notebook reads of a store: tables as data frames, runs, champions that predict, examples. It writes nothing.

`leptonflow.open()` is the way in. What does not belong here: anything that a command of the command line does too.
"""
