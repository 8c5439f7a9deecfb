"""What drives a sweep, without Ray: its folder, what slots do next, what is shown, what is kept on disk, how it ends.

In: settings, ledger, study, rule and budget. Out: orders for slots, a table of trials, room on the disk, the last
lines. Imports no Ray, so all of it can be tested with slots that train nothing.
"""
