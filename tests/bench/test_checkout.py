"""Which commit a report names."""

import subprocess
from pathlib import Path

from csd_nerf.bench.checkout import commit, commits


def test_code_makes_it_dirty_and_a_table_that_is_being_written_does_not(tmp_path: Path):
    assert commit(tmp_path) == "unknown (not a checkout)"
    code, table = tmp_path / "csd_nerf/code.py", tmp_path / "benchmarks/results/scenes/scenes.csv"
    for path in (code, table):
        path.parent.mkdir(parents=True)
        path.write_text("one\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "one")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    clean = commit(code.parent)
    assert len(clean) >= 7 and set(clean) <= set("0123456789abcdef")
    table.write_text("two\n")
    (tmp_path / "csd_nerf/new.txt").write_text("untracked\n")
    assert commit(code.parent) == clean
    code.write_text("two\n")
    assert commit(code.parent) == f"{clean}-dirty"


def test_the_commits_of_several_results_in_words():
    assert commits(["abc1234"] * 3) == "commit abc1234"
    known = ["abc1234", *["def5678"] * 2, "abc1234-dirty", *["def5678"]]
    assert commits(known) == "commits def5678, abc1234 and abc1234-dirty"
    assert commits([*known[:3], *[""] * 31]) == "commits def5678 and abc1234 (of 31 cells no commit is on record)"
    assert commits(["abc1234", ""]) == "commit abc1234 (of 1 cell no commit is on record)"
    assert commits(["", ""]) == commits([]) == "no commit is on record"
