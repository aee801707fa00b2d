//! Isolator namespaces/pid.
