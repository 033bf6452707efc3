//! Generated bindings to the system's libdpdk and a C shim for its inline functions.
