//! Kernel primitives that the isolators share.
