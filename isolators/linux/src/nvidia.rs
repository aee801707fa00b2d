//! GPUs of NVIDIA, as NVML tells of them: the library that comes with their driver.

use std::path::{Path, PathBuf};

use nvml_wrapper::{Nvml, error::NvmlError};

/// The library's name where the system's linker finds it.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// What NVML did not tell.
#[derive(Debug, thiserror::Error)]
#[error("NVML ('{library}') cannot tell of {what}")]
pub struct NvidiaError {
    library: PathBuf,
    what: &'static str,
    source: NvmlError,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvidiaGpu {
    /// The number that `nvidia-smi` and Mesos' flags know it by.
    pub index: u32,
    /// Minor number of its device node, `/dev/nvidia<minor>`.
    pub minor: u32,
    /// What it is called over reboots, too.
    pub uuid: String,
}

/// The GPUs of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nvidia {
    /// Version of the driver.
    pub driver: String,
    /// By index.
    pub gpus: Vec<NvidiaGpu>,
}

impl Nvidia {
    /// Asks NVML: this library, or the system's. It is unloaded again.
    ///
    /// # Errors
    ///
    /// When there is no such library, or no driver that it knows.
    pub fn detect(library: Option<&Path>) -> Result<Self, NvidiaError> {
        let library = library.unwrap_or(Path::new(LIBRARY));
        let failed = |what| {
            move |source| NvidiaError {
                library: library.to_owned(),
                what,
                source,
            }
        };
        let nvml = Nvml::builder().lib_path(library.as_os_str()).init();
        let nvml = nvml.map_err(failed("the driver"))?;
        let driver = nvml.sys_driver_version().map_err(failed("its version"))?;
        let count = nvml.device_count().map_err(failed("GPUs"))?;
        let gpu = |index| {
            let device = nvml.device_by_index(index)?;
            Ok(NvidiaGpu {
                index,
                minor: device.minor_number()?,
                uuid: device.uuid()?,
            })
        };
        let gpus = (0..count).map(gpu).collect::<Result<_, _>>();
        Ok(Self {
            driver,
            gpus: gpus.map_err(failed("a GPU"))?,
        })
    }
}
