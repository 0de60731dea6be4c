//! The last steps of a container runtime, for tests of the pod: started as root in new namespaces, it makes the root
//! file system, gives up what the container does not have, and becomes the container's program.
//!
//! ```text
//!  unshare --mount --pid --net --ipc --uts --fork -- test-container WORD… -- PROGRAM ARGUMENT…
//! ```
//!
//! Without `--`, and what follows it, all is done but the last step, which tells whether a container can be started here.
//!
//! With `join=PID`, and in no new namespaces, it runs one more program in the container whose first process that is, as
//! `kubectl exec` does, and ends as that ends.
//!
//! Words: `root=DIR` (an empty folder, to mount on), `cgroup=FILE` (a `cgroup.procs`), `uid=N`, `gid=N`, `group=N`, `cap=N` (a
//! capability by number), `ro=FROM:TO` and `rw=FROM:TO` (a file or directory, and where it is seen), `env=NAME=VALUE`.
//! No seccomp filter is set: a runtime's own is not here to be had.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{Gid, Mode, Uid};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
    mount_remount, unmount,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, pidfd_open, pivot_root, set_parent_process_death_signal, umask,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, ThreadNameSpaceType, capabilities,
    capability_is_in_bounding_set, clear_ambient_capability_set, move_into_thread_name_spaces,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// Those that a runtime gives every container, and the daemon needs none but `null` and `urandom` of.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Numbers of capabilities: the kernel's sets have 64 bits.
const CAPABILITIES: u64 = 64;

#[derive(Default)]
struct Spec {
    root: PathBuf,
    join: Option<Pid>,
    cgroups: Vec<PathBuf>,
    uid: u32,
    gid: u32,
    groups: Vec<Gid>,
    capabilities: u64,
    mounts: Vec<Mounted>,
    env: Vec<(String, String)>,
    /// `None`: there is none to become.
    command: Option<Vec<OsString>>,
}

struct Mounted {
    from: PathBuf,
    to: PathBuf,
    is_read_only: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("test-container: {error:#}");
            // As runtimes do where the program could not be started.
            ExitCode::from(128)
        }
    }
}

/// Comes back where there was no program to become.
fn run() -> Result<()> {
    let spec = Spec::read()?;
    for cgroup in &spec.cgroups {
        fs::write(cgroup, "0").with_context(|| format!("joining {}", cgroup.display()))?;
    }
    if let Some(first) = spec.join {
        join(first).context("joining the container")?;
        give_up(&spec).context("giving up what the container does not have")?;
        // Of its processes only children of this one are.
        let status = spec.program()?.status().context("running it")?;
        std::process::exit(status.code().unwrap_or(128));
    }
    // Its own network has a loopback that is down, which the kubelet's sandbox has up.
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    ensure!(up.context("running ip")?.success(), "ip can't set lo up");
    make_root(&spec).context("making the root file system")?;
    give_up(&spec).context("giving up what the container does not have")?;
    if spec.command.is_none() {
        return Ok(());
    }
    let mut command = spec.program()?;
    let error = command.exec();
    Err(error).with_context(|| format!("running {command:?}"))
}

fn join(first: Pid) -> Result<()> {
    let first = pidfd_open(first, PidfdFlags::empty())?;
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
    move_into_thread_name_spaces(first.as_fd(), all)?;
    Ok(std::env::set_current_dir("/")?)
}

impl Spec {
    fn read() -> Result<Self> {
        let mut words = std::env::args_os().skip(1);
        let mut spec = Self::default();
        for word in words.by_ref() {
            if word == "--" {
                spec.command = Some(Vec::new());
                break;
            }
            let word = word.to_str().context("a word that is no UTF-8")?;
            let (key, value) = word.split_once('=').with_context(|| word.to_owned())?;
            match key {
                "root" => spec.root = value.into(),
                "join" => spec.join = Pid::from_raw(value.parse()?),
                "cgroup" => spec.cgroups.push(value.into()),
                "uid" => spec.uid = value.parse()?,
                "gid" => spec.gid = value.parse()?,
                "group" => spec.groups.push(Gid::from_raw(value.parse()?)),
                "cap" => spec.capabilities |= 1 << value.parse::<u32>()?,
                "ro" | "rw" => {
                    let (from, to) = value.split_once(':').with_context(|| word.to_owned())?;
                    spec.mounts.push(Mounted {
                        from: from.into(),
                        to: Path::new(to).strip_prefix("/")?.to_owned(),
                        is_read_only: key == "ro",
                    });
                }
                "env" => {
                    let (name, value) = value.split_once('=').with_context(|| word.to_owned())?;
                    spec.env.push((name.to_owned(), value.to_owned()));
                }
                _ => bail!("what is {word}?"),
            }
        }
        if let Some(command) = &mut spec.command {
            command.extend(words);
        }
        Ok(spec)
    }

    fn program(&self) -> Result<Command> {
        let command = self.command.as_deref().unwrap_or_default();
        let (program, args) = command.split_first().context("no program")?;
        let mut command = Command::new(program);
        let env = self.env.iter().map(|(name, value)| (name, value));
        command.args(args).env_clear().envs(env);
        Ok(command)
    }
}

fn make_root(spec: &Spec) -> Result<()> {
    umask(Mode::WGRP | Mode::WOTH);
    let root = &spec.root;
    // What is mounted from here on is seen here alone.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", root, "tmpfs", safe, c"mode=0755")?;
    for mounted in &spec.mounts {
        bind(mounted, root).with_context(|| mounted.from.display().to_string())?;
    }
    let proc = root.join("proc");
    fs::create_dir(&proc)?;
    mount("proc", &proc, "proc", safe | MountFlags::NOEXEC, None)?;
    for device in DEVICES {
        let mounted = Mounted {
            from: Path::new("/dev").join(device),
            to: Path::new("dev").join(device),
            is_read_only: false,
        };
        bind(&mounted, root).with_context(|| device.to_owned())?;
    }
    mount_remount(root, safe | MountFlags::RDONLY, c"")?;
    std::env::set_current_dir(root)?;
    // The old root is put upon the new one, and taken away.
    pivot_root(".", ".").context("pivot_root")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    Ok(())
}

fn bind(mounted: &Mounted, root: &Path) -> Result<()> {
    let to = root.join(&mounted.to);
    if mounted.from.is_dir() {
        fs::create_dir_all(&to)?;
    } else {
        fs::create_dir_all(to.parent().context("no parent")?)?;
        fs::write(&to, "")?;
    }
    mount_bind(&mounted.from, &to)?;
    if mounted.is_read_only {
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
        mount_remount(&to, flags, c"")?;
    }
    Ok(())
}

/// In this order: each step needs what the ones behind it take away.
fn give_up(spec: &Spec) -> Result<()> {
    let kept = CapabilitySet::from_bits_retain(spec.capabilities);
    let all = (0..CAPABILITIES).map(|at| CapabilitySet::from_bits_retain(1 << at));
    for one in all.filter(|one| !kept.contains(*one)) {
        // The kernel has fewer than 64.
        if matches!(capability_is_in_bounding_set(one), Ok(true)) {
            remove_capability_from_bounding_set(one).context("the bounding set")?;
        }
    }
    clear_ambient_capability_set()?;
    set_thread_groups(&spec.groups).context("groups")?;
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    set_thread_res_gid(gid, gid, gid).context("the group")?;
    // Of a user that is not root, this takes every capability away but those that a program might inherit.
    set_thread_res_uid(uid, uid, uid).context("the user")?;
    let had = capabilities(None)?.permitted;
    let sets = CapabilitySets {
        effective: kept & had,
        permitted: kept & had,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).context("capabilities")?;
    set_no_new_privs(true)?;
    // `unshare --kill-child` asked for it, and another user's number forgets it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}
