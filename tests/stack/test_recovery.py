"""The scoreboard, where an exchange of segments would hide it."""

from tunstack.stack.recovery import Recovery
from tunstack.stack.rtt import RoundTrip


def test_nothing_is_sent_again_before_loss_is_known():
    recovery = Recovery()
    recovery.note(0, 5000, ((1000, 2000),))
    assert recovery.next_hole(0) is None
    recovery.begin(0, 5000)
    assert recovery.next_hole(0) == (0, 1000)


def test_blocks_that_cannot_be_are_not_believed():
    recovery = Recovery()
    for forged in ((3000, 2000), (4000, 6000), (0xFFFFFF00, 100)):
        assert not recovery.note(0, 5000, (forged,))
    assert recovery.sacked == []


def test_what_was_measured_decides_when_to_probe():
    rtt = RoundTrip()
    assert rtt.pto(0.05) is None
    rtt.sample(0.04)
    assert rtt.pto(0.05) == 0.08
    rtt.sample(0.001)
    assert rtt.pto(0.5) is None  # RTO comes first
