//! Safe, small wrapper over DPDK: EAL, ports, mempools, bursts, rings, lcores, clock.
