//! Who is measured: servers, what they hold, and who is held against whom.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use prost::bytes::Bytes;

use crate::bare::Answers;
use crate::dialect::{Dialect, Method};
use crate::process::{self, Daemon, Process, Simulation, Store};
use crate::raw::Client;

/// Names of lanes in the tables.
pub(crate) const BARE: &str = "bare";
pub(crate) const OURS: &str = "ours";
pub(crate) const PEER: &str = "peer";

/// A server that is measured.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    pub(crate) dialect: Dialect,
    pub(crate) socket: PathBuf,
    pub(crate) pid: Option<u32>,
    /// GPUs that we gave it.
    gpus: usize,
    /// Ends it with the lane. None of the peer, which is not ours.
    _process: Option<Process>,
}

impl Lane {
    /// `id` tells servers of one run apart.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn bare(dialect: Dialect, dirs: &Dirs, id: &str) -> Result<Self> {
        let socket = dirs.sockets.join(format!("bare-{id}.sock"));
        let process = process::bare(&socket)?;
        Ok(Self::of(BARE, dialect, socket, process))
    }

    /// `id` as for [`Lane::bare`].
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn ours(
        name: &'static str,
        dialect: Dialect,
        daemon: &Daemon,
        store: Store,
        dirs: &Dirs,
        id: &str,
    ) -> Result<Self> {
        let socket = dirs.sockets.join(format!("{id}.sock"));
        let process = daemon.start(&socket, store, &dirs.states.join(id))?;
        Ok(Self::of(name, dialect, socket, process))
    }

    /// Our daemon over simulated NVML, whose GPUs it has.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn simulated(
        name: &'static str,
        daemon: &Daemon,
        store: Store,
        dirs: &Dirs,
        simulation: &Simulation<'_>,
    ) -> Result<Self> {
        let id = format!("simulated-{name}");
        let socket = dirs.sockets.join(format!("{id}.sock"));
        let state = dirs.states.join(id);
        let process = daemon.start_simulated(&socket, store, &state, simulation)?;
        Ok(Self::of(name, Dialect::Native, socket, process))
    }

    /// # Errors
    /// Nobody listens.
    pub(crate) fn peer(socket: &Path) -> Result<Self> {
        let stream = std::os::unix::net::UnixStream::connect(socket)
            .with_context(|| format!("connecting to the peer at {}", socket.display()))?;
        // The one who listens; unknown where it is in another namespace.
        let pid = rustix::net::sockopt::socket_peercred(&stream)
            .ok()
            .and_then(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()).ok());
        Ok(Self {
            name: PEER,
            dialect: Dialect::Upstream,
            socket: socket.to_owned(),
            pid,
            gpus: 0,
            _process: None,
        })
    }

    fn of(name: &'static str, dialect: Dialect, socket: PathBuf, process: Process) -> Self {
        Self {
            name,
            dialect,
            socket,
            pid: Some(process.pid()),
            gpus: 0,
            _process: Some(process),
        }
    }

    /// # Errors
    /// Nobody listens.
    pub(crate) async fn connect(&self) -> Result<Client> {
        Client::connect(&self.socket).await
    }

    /// Gives it GPUs with conditions, as many as are missing to `gpus`.
    ///
    /// # Errors
    /// It refuses.
    pub(crate) async fn fill(&mut self, gpus: usize) -> Result<()> {
        let mut client = self.connect().await?;
        for gpu in self.gpus..gpus {
            let create = [(Method::Create, self.dialect.create(gpu))];
            // Both, to leave it healthy.
            let toggles = self.dialect.toggles(gpu).into_iter();
            let updates = toggles.map(|request| (Method::UpdateStatus, request));
            for (method, request) in create.into_iter().chain(updates) {
                let path = self.dialect.path(method);
                let answer = client.unary(&path, request).await;
                answer.with_context(|| format!("filling {}", self.name))?;
            }
            self.gpus = gpu + 1;
        }
        Ok(())
    }

    /// Takes back the GPUs that [`Lane::fill`] gave.
    ///
    /// # Errors
    /// It refuses.
    pub(crate) async fn empty(&mut self) -> Result<()> {
        let mut client = self.connect().await?;
        for gpu in 0..self.gpus {
            let path = self.dialect.path(Method::Delete);
            client.unary(&path, self.dialect.delete(gpu)).await?;
        }
        self.gpus = 0;
        Ok(())
    }

    /// What it answers, to have the bare server answer the same. The event is that of a write.
    ///
    /// # Errors
    /// It answers otherwise than a GPU service.
    pub(crate) async fn answers(&self) -> Result<Answers> {
        let mut client = self.connect().await?;
        let dialect = self.dialect;
        let watch = dialect.path(Method::Watch);
        let mut events = client.stream(&watch, dialect.watch()).await?;
        let mut update = Bytes::new();
        for request in dialect.toggles(0) {
            let path = dialect.path(Method::UpdateStatus);
            update = client.unary(&path, request).await?;
        }
        let written = dialect.written_version(update.clone())?;
        let event = loop {
            let Some(event) = events.message().await? else {
                bail!("the watch ended before the write was seen");
            };
            if dialect.is_modified(&event) && dialect.event_version(event.clone())? == written {
                break event;
            }
        };
        Ok(Answers {
            get: client
                .unary(&dialect.path(Method::Get), dialect.get(0))
                .await?,
            list: client
                .unary(&dialect.path(Method::List), dialect.list())
                .await?,
            update,
            event,
        })
    }
}

/// Where a run puts its files.
#[derive(Debug)]
pub(crate) struct Dirs {
    /// Short: a socket's path has 107 bytes.
    pub(crate) sockets: PathBuf,
    /// On a disk: what is durable costs what it costs there.
    pub(crate) states: PathBuf,
}

/// A measure, and those who are held against it.
#[derive(Debug)]
pub(crate) struct Contest {
    pub(crate) bare: Lane,
    /// Ours first.
    pub(crate) subjects: Vec<Lane>,
}

impl Contest {
    /// In the native dialect, our daemon.
    ///
    /// # Errors
    /// One does not start.
    pub(crate) fn native(daemon: &Daemon, dirs: &Dirs, id: &str) -> Result<Self> {
        let dialect = Dialect::Native;
        let ours = Lane::ours(OURS, dialect, daemon, Store::Memory, dirs, id)?;
        Ok(Self {
            bare: Lane::bare(dialect, dirs, id)?,
            subjects: vec![ours],
        })
    }

    /// In the upstream dialect, our daemon and another server.
    ///
    /// # Errors
    /// One does not start, or the peer is not there.
    pub(crate) fn with_peer(daemon: &Daemon, dirs: &Dirs, peer: &Path) -> Result<Self> {
        let (dialect, id) = (Dialect::Upstream, "upstream");
        let ours = Lane::ours(OURS, dialect, daemon, Store::Memory, dirs, id)?;
        Ok(Self {
            bare: Lane::bare(dialect, dirs, id)?,
            subjects: vec![ours, Lane::peer(peer)?],
        })
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.bare.dialect
    }

    /// Gives all the same GPUs, and the bare server the answers of ours.
    ///
    /// # Errors
    /// One refuses.
    pub(crate) async fn fill(&mut self, gpus: usize) -> Result<()> {
        for subject in &mut self.subjects {
            subject.fill(gpus).await?;
        }
        let ours = self.subjects.first().context("a contest without ours")?;
        ours.answers().await?.set(&self.bare.socket).await
    }

    /// The bare server, then the subjects.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        std::iter::once(&self.bare).chain(&self.subjects)
    }
}
