"""An error is announced by its type and what it says first."""

import traceback

from csd_nerf.bench.failures import headline


def raised(error: BaseException, cause: BaseException | None = None) -> str:
    try:
        if cause is None:
            raise error
        try:
            raise cause
        except BaseException as first:
            raise error from first
    except BaseException:  # noqa: B036 - SystemExit is one of those that cells raise
        return traceback.format_exc()


def test_the_first_line_of_the_last_exception_is_told():
    listed = ValueError("the folder is no prior:\n  - text_encoder/model.safetensors is missing\nsee the README")
    assert headline(raised(listed)) == "ValueError: the folder is no prior:"
    assert headline(raised(listed, KeyError("first"))) == "ValueError: the folder is no prior:"
    assert headline(raised(SystemExit("no such thing"))) == "SystemExit: no such thing"
    assert headline(f"scene 3\n{raised(listed)}\n") == "ValueError: the folder is no prior:", "as it is kept"


def test_what_is_no_traceback_is_told_by_its_first_line():
    assert headline("its process ended with signal 9\nmore\n") == "its process ended with signal 9"
    assert headline("") == ""
