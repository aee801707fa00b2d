//! Payload messages of the module contract.
