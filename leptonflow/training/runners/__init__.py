"""Where a fit is computed: in this process or in one of its own. Changes no number, hence in no digest.

What does not belong here: the fit itself (training.model_fits), and Prefect's or Ray's part (flows.fit_runners).
"""
