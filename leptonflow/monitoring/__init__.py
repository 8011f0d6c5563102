"""What is served, watched: the prediction log, labels that come later, live quality, drift of what is served.

What does not belong here: answering requests (serving) and when a drift is looked for (flows).
"""
