//! Library of the built-in allocators.

tepui_module_sdk::export!(
    allocator: tepui_allocator_hierarchical::Hierarchical,
    allocator: tepui_allocator_round_robin::RoundRobin,
);
