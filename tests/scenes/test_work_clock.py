from csd_nerf.scenes.work_clock import WorkClock


def test_pauses_do_not_count():
    now = 100.0
    clock = WorkClock(lambda: now)
    now = 103.0
    clock.set_paused(True)
    now = 1000.0
    assert clock.seconds == 3
    clock.set_paused(True)
    clock.set_paused(False)
    now = 1002.0
    clock.set_paused(False)
    assert clock.seconds == 5
    clock.restart()
    now = 1003.5
    assert clock.seconds == 1.5


def test_a_pause_outlasts_a_restart():
    now = 0.0
    clock = WorkClock(lambda: now)
    clock.set_paused(True)
    clock.restart()
    now = 50.0
    assert clock.seconds == 0
    clock.set_paused(False)
    now = 51.0
    assert clock.seconds == 1
