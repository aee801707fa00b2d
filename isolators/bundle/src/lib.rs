//! Library of the kernel isolators.

tepui_module_sdk::export!(
    isolator: tepui_isolator_cgroups::Cgroups,
    isolator: tepui_isolator_namespaces::PidNamespaces,
);
