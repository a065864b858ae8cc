// Package dhcp is a DHCP client (RFC 2131, and RFC 8415 for IPv6) for one container on an uplink. It has no socket: who
// makes it sends its packets to the physical network in the container's name, and gives it those that come back. So the
// container needs no client of its own, has its address before it starts, and keeps it while it is stopped from
// running.
//
//	        Acquire                     T1: to the server, T2: to all
//	INIT ----------> SELECTING -> REQUESTING -> BOUND <------> RENEWING, REBINDING
//	  ^  Resume: INIT-REBOOT, Rebind ------------^ |                |
//	  +---- NAK, NoBinding, or the lease has ended-+----------------+
//
// An address that another station has (Config.Taken) is declined, and another asked for. A lease that ended and came
// back with another address is Config.Changed's to act on.
package dhcp
