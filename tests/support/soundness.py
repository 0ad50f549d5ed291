"""What must be true of a stack at all times, whoever sends to it."""

from tunstack.stack import seq
from tunstack.stack.events import What
from tunstack.stack.stack import Stack
from tunstack.stack.tcp import Connection, State


class Soundness:
    """Looks at a stack after each step, and remembers what must not go back.

    Args:
        stack: the stack.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._edges: dict[Connection, int] = {}
        self._credits: dict[Connection, int] = {}
        self._ended: set[Connection] = set()

    def granted(self, connection: Connection, octets: int) -> None:
        """Note that the cluster takes so many octets more."""
        self._credits[connection] = self._credits.get(connection, 0) + octets

    def see(self, event: tuple) -> None:
        """Look at one event."""
        kind, connection = event[:2]
        if kind in (What.DATAGRAM, What.ECHO):
            return
        assert connection not in self._ended, f"{kind!r} after the end"
        if kind is What.RESET:
            self._ended.add(connection)
        elif kind is What.DATA:
            octets = event[4] - event[3]
            assert octets > 0
            self._credits[connection] -= octets
            assert self._credits[connection] >= 0, "text that nobody gave credit for"

    def check(self) -> None:
        """Look at everything, once the output has been taken."""
        stack = self._stack
        deadline = stack.deadline()
        for key, connection in stack.connections.items():
            assert connection.key == key
            assert connection.state is not State.CLOSED
            self._check_connection(connection)
            for due in (connection.deadline, *self._lines(connection)):
                if due is not None:
                    assert deadline is not None, "a timer that nobody knows of"
                    assert deadline <= due

    @staticmethod
    def _lines(connection: Connection) -> tuple[float | None, float | None]:
        """When TIME-WAIT is over, and when an ACK is sent at the latest."""
        common = connection.common
        waiting = common.time_wait.members.get(connection)
        assert (waiting is not None) == (connection.state is State.TIME_WAIT)
        return waiting, common.delayed.members.get(connection)

    def _check_connection(self, connection: Connection) -> None:
        snd, rcv = connection.snd, connection.rcv
        queue = connection.queue
        unsent = queue is not None and queue.size > queue.sent
        assert seq.le(snd.una, snd.nxt)
        if (snd.una != snd.nxt or unsent) and connection.state is not State.PENDING:
            assert connection.deadline is not None, "nothing would wake it up"
        if rcv.acked != rcv.nxt:
            waits = connection in connection.common.delayed.members
            assert waits, "an ACK that would never be sent"
        if queue is not None:
            assert 0 <= queue.sent <= queue.size
        assert connection.credit >= 0
        edge = self._edges.get(connection, rcv.edge)
        over = connection.state not in (State.ESTABLISHED, State.SYN_RECEIVED)
        assert seq.le(edge, rcv.edge) or over, "the right edge of the window went back"
        self._edges[connection] = rcv.edge
        assert seq.le(rcv.nxt, rcv.edge)
        if connection.out_of_order is not None:
            for left, right in connection.out_of_order.sack_blocks(1 << 16):
                assert seq.lt(rcv.nxt, left), "text that could have been delivered"
                assert seq.lt(left, right)
                assert seq.le(right, rcv.edge), "text beyond the window"
