"""Exchanges in packetdrill's notation, played against a stack or against a real tunnel.

A script is a list of events: packets that the peer sends (``<``), packets that the stack
has to send (``>``), and system calls of the program behind the stack. A packet that no
``>`` expects at its point fails the script.

=============  =========================================================================
``notation``   the language: text to events, packets to text
``wire``       packets to octets and back, numbers of the script to numbers of the wire
``play``       one script against one :class:`~.play.World`
``virtual``    the world of the sans-IO stack, in virtual time
``tunnel``     the world of a real device, a real engine and real sockets
=============  =========================================================================

**What is taken of packetdrill.** Time is ``0.1`` (from the start), ``+0.1`` (after the
event before) or a range ``+0~+0.5``. Packets are TCP with flags ``S F R P . E W U`` or
``-``, ``seq:end(length)``, ``ack``, ``win`` (as on the wire, unscaled), ``urg`` and
options; UDP, ``udp (length)``; ICMP, ``icmp type code [mtu N] [seq:end(length)]`` with
packetdrill's names of types and codes. What a ``>`` packet does not say of ``win`` is not
looked at; options that it does not list may not be there, unless it says ``<...>``.
Sequence numbers of the peer are as written; ours count from the number of the ``> S.``
line, and our TS val from that of the first. ``<hex 1e03ff>`` is an option of any octets,
which packetdrill has no word for. The octets of text follow from their place in the
stream, and are compared. IPv6 has an MTU of 1520, so that the MSS is the same as in IPv4.

**System calls** are those of the cluster's target, which refuses until it listens.

===================================================  ===================================
``socket``, ``bind``, ``listen``, ``accept``         a UDP port is closed until ``bind``
``setsockopt(3, SOL_SOCKET, SO_RCVBUF, [N], 4)``     the manager takes N octets, and
                                                     more only after a ``read``
``setsockopt(4, ..., SO_LINGER, {onoff=1, ...}, 8)`` ``close`` resets
``write``, ``read``, ``sendto``, ``recvfrom``        text both ways, datagrams
``shutdown(4, SHUT_WR)``                             half-close
``close``                                            both halves; RST with unread text,
                                                     and for text that still comes
```true```                                           nothing happens before this time
===================================================  ===================================

**The head of a script** says what it checks: the RFC, its section and its sentence. Lines
in it that mean something: ``--ip_version=ipv4`` or ``ipv6`` (both without),
``--tolerance_usecs=N``, ``--mtu=N``; ``// virtual: why`` for a script that a real tunnel
cannot play or takes too long for; ``// target: host unreachable``, or another refusal,
for what else a target can be than a closed port, or ``slow``: what it answers to a SYN is
said by ``listen`` and by ``close(3)``; ``// iss: N`` for our initial sequence number.
"""
