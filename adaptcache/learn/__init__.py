"""Learning how long to hold: experts, river models, their frozen form, the trainer and its thread.

Nothing here does I/O or holds an entry. It works through `_core.Brain`, one learner's state.
"""
