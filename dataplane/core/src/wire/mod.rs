//! Views of Ethernet, IPv4, IPv6, TCP, UDP and ICMP headers.
