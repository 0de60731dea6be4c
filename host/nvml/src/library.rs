//! Finds the library, loads it, and tells a simulated one from a real one.

use std::ffi::{OsStr, c_char};
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::call::{CallFailed, Meaning};
use crate::config::Config;
use crate::raw::DeviceHandle;
use crate::watch;

/// SONAME of NVML: what a program is to load, whatever the driver's version.
pub const LIBRARY_NAME: &str = "libnvidia-ml.so.1";

/// Exported by the simulated library only. Names and UUIDs prove nothing; this does.
pub const IDENTITY_SYMBOL: &str = "nvmlSimIdentity";

/// Where distributions put libraries under a driver root.
const FOLDERS_OF_ROOT: [&str; 3] = [
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
];

/// Where GKE's device plugin installs the driver's libraries; on no loader's path.
const GKE_FOLDER: &str = "/home/kubernetes/bin/nvidia/lib64";

/// Why there is no NVML. Each says what to do; none prints its source.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error(
        "no {LIBRARY_NAME} (looked in {searched}): install the NVIDIA driver, or point \
         --nvml-library at the library or --nvml-driver-root at the driver's root"
    )]
    NotFound { searched: String },
    #[error("can't use {}: point --nvml-library at a readable {LIBRARY_NAME}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("can't load {library}: is it a shared library of this machine's architecture?")]
    Load { library: String, source: NvmlError },
    #[error(
        "{library} is no NVML (it exports no nvmlInit_v2): point --nvml-library at {LIBRARY_NAME}"
    )]
    NotNvml { library: String },
    #[error(
        "NVML of {library} does not start: check with nvidia-smi that the driver is loaded and matches it"
    )]
    Init {
        library: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// NVML, loaded and initialised. Dropping the last `Arc` of it shuts NVML down and unloads it.
pub(crate) struct Library {
    nvml: ManuallyDrop<Nvml>,
    /// Path, or the bare name where the loader found it.
    pub(crate) path: String,
    /// Everything it says is a drill.
    pub(crate) simulated: bool,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library")
            .field("path", &self.path)
            .field("simulated", &self.simulated)
            .finish_non_exhaustive()
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let _began = watch::begin("nvmlShutdown", Duration::ZERO);
        // SAFETY: nobody comes to it after `drop`.
        unsafe { ManuallyDrop::drop(&mut self.nvml) };
    }
}

impl LibraryError {
    /// The library is there, and the driver is not, or is another than it was made for.
    pub(crate) fn is_driver_gone(&self) -> bool {
        let Self::Init { source, .. } = self else {
            return false;
        };
        source
            .downcast_ref::<CallFailed>()
            .is_some_and(|failed| failed.meaning == Meaning::DriverGone)
    }
}

impl Library {
    /// The first usable one in the order of design N2.
    ///
    /// # Errors
    /// Of several that can't be used, the first: it is the one that was meant.
    pub(crate) fn open(config: &Config) -> Result<Self, LibraryError> {
        let mut first_error = None;
        let places = places(config);
        for place in &places {
            match Self::open_at(place) {
                Ok(Some(library)) => return Ok(library),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "not usable");
                    first_error.get_or_insert(error);
                }
            }
        }
        let searched = places
            .iter()
            .map(Place::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        Err(first_error.unwrap_or(LibraryError::NotFound { searched }))
    }

    /// `None` where there is no such library.
    fn open_at(place: &Place) -> Result<Option<Self>, LibraryError> {
        match place {
            Place::Named(path) => {
                readable(path)?;
                Self::load(path.as_os_str()).map(Some)
            }
            Place::Folder(folder) => {
                let path = folder.join(LIBRARY_NAME);
                if path.exists() {
                    Self::load(path.as_os_str()).map(Some)
                } else {
                    Ok(None)
                }
            }
            Place::Loader => match Self::load(OsStr::new(LIBRARY_NAME)) {
                // The loader does not tell "nowhere" from "broken" but in words.
                Err(LibraryError::Load { source, .. }) if is_nowhere(&source) => Ok(None),
                result => result.map(Some),
            },
        }
    }

    fn load(path: &OsStr) -> Result<Self, LibraryError> {
        let library = path.to_string_lossy().into_owned();
        let began = watch::begin("nvmlInit_v2", Duration::ZERO);
        let result = Nvml::builder().lib_path(path).init();
        drop(began);
        match result {
            Ok(nvml) => {
                let simulated = is_simulated(&nvml);
                Ok(Self {
                    nvml: ManuallyDrop::new(nvml),
                    path: library,
                    simulated,
                })
            }
            Err(source @ NvmlError::LibloadingError(_)) => {
                Err(LibraryError::Load { library, source })
            }
            Err(NvmlError::FailedToLoadSymbol(_)) => Err(LibraryError::NotNvml { library }),
            Err(error) => {
                let source = Box::new(CallFailed::new("nvmlInit_v2", error));
                Err(LibraryError::Init { library, source })
            }
        }
    }

    pub(crate) fn nvml(&self) -> &Nvml {
        &self.nvml
    }

    /// The device behind a handle of this library.
    pub(crate) fn device(&self, handle: DeviceHandle) -> Device<'_> {
        // SAFETY: handles are kept per session (`Devices::detach`), so this one was given out by
        // this library, which is initialised for as long as `self` lives.
        unsafe { Device::new(handle.raw(), &self.nvml) }
    }
}

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// This very file, which has to be there.
    Named(PathBuf),
    Folder(PathBuf),
    /// The dynamic loader's own search.
    Loader,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(path) | Self::Folder(path) => path.display().fmt(f),
            Self::Loader => f.write_str("the loader's path"),
        }
    }
}

fn places(config: &Config) -> Vec<Place> {
    if let Some(path) = &config.library {
        return vec![Place::Named(path.clone())];
    }
    let of_root = config.driver_root.iter().flat_map(|root| {
        FOLDERS_OF_ROOT
            .iter()
            .map(|folder| Place::Folder(root.join(folder)))
    });
    of_root
        .chain([Place::Loader, Place::Folder(PathBuf::from(GKE_FOLDER))])
        .collect()
}

/// The loader's own message for a missing file would also blame a missing dependency on it.
fn readable(path: &Path) -> Result<(), LibraryError> {
    let error = |source| LibraryError::Unreadable {
        path: path.to_owned(),
        source,
    };
    if std::fs::File::open(path)
        .and_then(|file| file.metadata())
        .map_err(error)?
        .is_file()
    {
        Ok(())
    } else {
        Err(error(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a file",
        )))
    }
}

fn is_nowhere(error: &NvmlError) -> bool {
    let text = error.to_string();
    text.contains(LIBRARY_NAME) && text.contains("No such file")
}

fn is_simulated(nvml: &Nvml) -> bool {
    type Identity = unsafe extern "C" fn() -> *const c_char;
    // SAFETY: the symbol is only looked for, never called, so its type does not matter.
    let symbol = unsafe {
        nvml.lib()
            .__library
            .get::<Identity>(IDENTITY_SYMBOL.as_bytes())
    };
    symbol.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(library: Option<&Path>, driver_root: Option<&Path>) -> Config {
        Config {
            library: library.map(Path::to_owned),
            driver_root: driver_root.map(Path::to_owned),
            ..Config::default()
        }
    }

    fn shown(config: &Config) -> Vec<String> {
        places(config).iter().map(Place::to_string).collect()
    }

    #[test]
    fn n2_an_explicit_path_is_the_only_one() {
        let config = config(Some(Path::new("/x.so")), Some(Path::new("/root")));
        assert_eq!(shown(&config), ["/x.so"]);
    }

    #[test]
    fn n2_the_driver_root_comes_before_the_host_and_gke_last() {
        assert_eq!(
            shown(&config(None, Some(Path::new("/r")))),
            [
                "/r/usr/lib64",
                "/r/usr/lib/x86_64-linux-gnu",
                "/r/usr/lib/aarch64-linux-gnu",
                "the loader's path",
                "/home/kubernetes/bin/nvidia/lib64",
            ]
        );
    }

    #[test]
    fn a_missing_explicit_path_is_named() {
        let error = Library::open(&config(Some(Path::new("/nowhere/nvml.so")), None)).unwrap_err();
        assert!(
            matches!(error, LibraryError::Unreadable { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("/nowhere/nvml.so"), "{error}");
    }

    #[test]
    fn the_loader_tells_nowhere_from_broken() {
        let load = |name: &str| match Library::load(OsStr::new(name)) {
            Err(LibraryError::Load { source, .. }) => source,
            other => panic!("{other:?}"),
        };
        assert!(is_nowhere(&load("libnvidia-ml.so.1.nowhere")));
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join(LIBRARY_NAME);
        std::fs::write(&broken, "text").unwrap();
        assert!(!is_nowhere(&load(broken.to_str().unwrap())));
    }

    #[test]
    fn a_library_that_is_no_nvml_is_refused() {
        let libm = Library::load(OsStr::new("libm.so.6")).unwrap_err();
        assert!(matches!(libm, LibraryError::NotNvml { .. }), "{libm:?}");
        assert!(
            libm.to_string().starts_with("libm.so.6 is no NVML"),
            "{libm}"
        );
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_wherever_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let lib64 = folder.path().join("usr/lib64");
        std::fs::create_dir_all(&lib64).unwrap();
        let file = lib64.join(LIBRARY_NAME);
        std::fs::write(&file, "text").unwrap();
        let named = Library::open(&config(Some(&file), None)).unwrap_err();
        assert!(matches!(named, LibraryError::Load { .. }), "{named:?}");
        let of_root = Library::open(&config(None, Some(folder.path())));
        // A machine with a driver goes on to its own.
        if let Err(error) = of_root {
            assert!(matches!(error, LibraryError::Load { .. }), "{error:?}");
            assert!(error.to_string().contains("usr/lib64"), "{error}");
        }
    }

    #[test]
    fn a_folder_is_no_library() {
        let folder = tempfile::tempdir().unwrap();
        let error = Library::open(&config(Some(folder.path()), None)).unwrap_err();
        assert!(
            matches!(error, LibraryError::Unreadable { .. }),
            "{error:?}"
        );
    }
}
