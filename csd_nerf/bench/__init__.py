"""Benchmarks of edits of scenes, panoramas and videos: methods times instructions, measured against true edits.

A *cell* is one computation with one small result: a scene trained on its photos (`scene`), the true edits of one scene
under one instruction (`truth`), or one method's edit of one scene under one instruction (`edit`). Cells are pure
functions from bytes to bytes, so that any machine can compute them; their key is a hash of everything that decides
their result, so that a result is never used for other settings.

    plan.py        which cells           scenes.py   scenes, instructions, captions     methods.py  methods and budgets
    compute.py     what a cell does      measure.py  measures of an edit
    store.py       results on disk       engines.py  local processes | Ray              schedule.py runs what is missing
    statistics.py  bootstrap             report.py   Markdown and CSV                   sheets.py, sweep.py  pictures
    subject.py     a benchmark's words   results.py  files of a cell                    benchmarks.py  all by name
    failures.py    errors in a line      checkout.py  commits             about.py    what a report says about itself

Those of panoramas and videos (`picture_*.py`) have methods, plan, computation and measures of their own, and the rest
in common; there a `scene` cell holds the pictures before the edit, also as the prior's autoencoder shows them.
"""
