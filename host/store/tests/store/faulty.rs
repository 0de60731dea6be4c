//! A disk that does as it is told: fails, hangs, and loses what was not synced when the power goes.
//! Files lie in the real file system; beside each is kept what a power loss would leave of it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use device_api_store::{Access, Disk, DiskFile, Settings};

use crate::common::{Dice, PATIENCE};

/// How the disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Opening for writing fails, as on a read-only mount.
    ReadOnly,
    /// Opening fails, for reading too.
    Closed,
    /// Reading fails, as on a disk or a mount that is ill.
    ReadFails,
    /// So does asking for a file's size.
    SizeFails,
    /// The names in a directory can't be synced.
    NamesFail,
    /// Writing fails, as on a full disk.
    Full,
    /// Syncs fail, and what they were to sync is lost to a power loss though it reads well.
    SyncFails,
    /// Syncs don't return.
    Hangs,
}

#[derive(Debug, Default)]
struct Platter {
    mood: Mood,
    hanging: usize,
    /// So many reads fail before the mood counts.
    ill_reads: u32,
    syncs: u64,
    images: HashMap<u64, Image>,
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write(u64, Vec<u8>),
    Resize(u64),
}

#[derive(Clone, Debug, Default)]
struct Image {
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

impl Image {
    fn apply(durable: &mut Vec<u8>, change: &Unsynced) {
        match change {
            Unsynced::Write(at, data) => {
                let end = *at as usize + data.len();
                if durable.len() < end {
                    durable.resize(end, 0);
                }
                durable[*at as usize..end].copy_from_slice(data);
            }
            Unsynced::Resize(bytes) => durable.resize(*bytes as usize, 0),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Faulty(Arc<(Mutex<Platter>, Condvar)>);

impl Faulty {
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            disk: Arc::new(self.clone()),
            read_pause: Duration::from_millis(1),
            ..Settings::default()
        }
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.0.0.lock().unwrap().mood = mood;
        self.0.1.notify_all();
    }

    pub(crate) fn fail_reads(&self, reads: u32) {
        self.0.0.lock().unwrap().ill_reads = reads;
    }

    fn mood(&self) -> Mood {
        self.0.0.lock().unwrap().mood
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.0.0.lock().unwrap().syncs
    }

    /// Returns when a sync hangs.
    pub(crate) fn await_hanging(&self) {
        let platter = self.0.0.lock().unwrap();
        let (platter, _) = (self.0.1)
            .wait_timeout_while(platter, PATIENCE, |platter| platter.hanging == 0)
            .unwrap();
        assert!(platter.hanging > 0, "no sync came");
    }

    /// What a power loss now would leave of a file: what was synced, and of the rest such sectors as the
    /// dice say.
    pub(crate) fn after_power_loss(&self, path: &Path, dice: &mut Dice) -> Vec<u8> {
        const SECTOR: usize = 512;
        let inode = fs::metadata(path).expect("there").ino();
        let platter = self.0.0.lock().unwrap();
        let image = &platter.images[&inode];
        let mut left = image.durable.clone();
        for change in &image.unsynced {
            match change {
                Unsynced::Resize(_) if dice.roll(2) == 0 => Image::apply(&mut left, change),
                Unsynced::Resize(_) => {}
                Unsynced::Write(at, data) => {
                    for (number, sector) in data.chunks(SECTOR).enumerate() {
                        if dice.roll(2) == 0 {
                            let at = at + (number * SECTOR) as u64;
                            Image::apply(&mut left, &Unsynced::Write(at, sector.to_vec()));
                        }
                    }
                }
            }
        }
        left
    }
}

impl Disk for Faulty {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut platter = self.0.0.lock().unwrap();
        match (platter.mood, access) {
            (Mood::Closed, _) => return Err(io::ErrorKind::PermissionDenied.into()),
            (Mood::ReadOnly, Access::Write | Access::Create) => {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.read(true).write(access != Access::Read);
        if access == Access::Create {
            options.create(true).truncate(true);
        }
        let file = options.open(path)?;
        let inode = file.metadata()?.ino();
        let there = fs::read(path)?;
        let image = platter.images.entry(inode).or_default();
        if image.durable.is_empty() && image.unsynced.is_empty() {
            image.durable = there;
        }
        Ok(Arc::new(FaultyFile {
            file,
            inode,
            disk: self.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        if self.mood() == Mood::NamesFail {
            return Err(eio());
        }
        File::open(directory)?.sync_all()
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

#[derive(Debug)]
struct FaultyFile {
    file: File,
    inode: u64,
    disk: Faulty,
}

impl FaultyFile {
    fn change(&self, change: Unsynced) -> io::Result<()> {
        let mut platter = self.disk.0.0.lock().unwrap();
        if platter.mood == Mood::Full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let image = platter.images.get_mut(&self.inode).expect("open");
        image.unsynced.push(change);
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        if self.disk.mood() == Mood::SizeFails {
            return Err(eio());
        }
        self.file.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        {
            let mut platter = self.disk.0.0.lock().unwrap();
            if platter.ill_reads > 0 {
                platter.ill_reads -= 1;
                return Err(eio());
            }
            if platter.mood == Mood::ReadFails {
                return Err(eio());
            }
        }
        self.file.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Unsynced::Write(offset, data.to_vec()))?;
        self.file.write(offset, data)
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.change(Unsynced::Resize(bytes))?;
        self.file.resize(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let (platter, moved) = &*self.disk.0;
        let mut platter = platter.lock().unwrap();
        platter.syncs += 1;
        platter.hanging += 1;
        moved.notify_all();
        let (mut platter, _) = moved
            .wait_timeout_while(platter, PATIENCE, |platter| platter.mood == Mood::Hangs)
            .unwrap();
        platter.hanging -= 1;
        let fails = platter.mood == Mood::SyncFails;
        let image = platter.images.get_mut(&self.inode).expect("open");
        let unsynced = std::mem::take(&mut image.unsynced);
        if fails {
            // The kernel tells once, and holds the pages for clean from then on.
            return Err(io::Error::other("I/O error"));
        }
        for change in &unsynced {
            Image::apply(&mut image.durable, change);
        }
        Ok(())
    }
}
