//! Library of the kernel isolators.

tepui_module_sdk::export!(
    isolator: tepui_isolator_cgroups::Cgroups,
    isolator: tepui_isolator_cgroups::LinuxDevices,
    isolator: tepui_isolator_filesystem::DockerRuntime,
    isolator: tepui_isolator_filesystem::Du,
    isolator: tepui_isolator_filesystem::LinuxFilesystem,
    isolator: tepui_isolator_filesystem::PosixFilesystem,
    isolator: tepui_isolator_namespaces::IpcNamespaces,
    isolator: tepui_isolator_namespaces::PidNamespaces,
    isolator: tepui_isolator_posix::Cpu,
    isolator: tepui_isolator_posix::Mem,
    isolator: tepui_isolator_posix::Rlimits,
    isolator: tepui_isolator_privileges::Capabilities,
    isolator: tepui_isolator_privileges::NoNewPrivileges,
    isolator: tepui_isolator_seccomp::Seccomp,
    isolator: tepui_isolator_secrets::EnvironmentSecrets,
    isolator: tepui_isolator_volumes::DockerVolumes,
    isolator: tepui_isolator_volumes::HostPathVolumes,
    isolator: tepui_isolator_volumes::ImageVolumes,
    isolator: tepui_isolator_volumes::SandboxPathVolumes,
    isolator: tepui_isolator_volumes::SecretVolumes,
);
