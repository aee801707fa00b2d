//! Isolators cgroups/cpu and cgroups/mem.
