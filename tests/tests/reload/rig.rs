//! A node with a policy directory, and the tally guest (`tests/guests/tally`) in as many versions as wanted.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use device_api_proto::native::{
    Condition, Gpu, Policy, PolicyChange, PolicyPhase, ReloadPoliciesResponse,
};
use device_api_tests::{Native, Node, Watch, binary, condition_of, guests};
use nvml_sim::control::{Only, Request};

/// The longest deadline that may be set without making readers wait longer: a starved machine is no
/// guest's fault.
pub(crate) const DEADLINE: &str = "25ms";

/// A version of the tally policy: other settings are other bytes.
pub(crate) fn tally(settings: &str) -> Result<Vec<u8>> {
    const BYTES: usize = 128;
    const MARK: &[u8] = b"<tally-guest:";
    ensure!(settings.len() < BYTES, "{settings} is too long");
    let mut component = guests::TALLY_GUEST.to_vec();
    let mut places = component.windows(MARK.len()).enumerate();
    let mut places = places.by_ref().filter(|(_, bytes)| *bytes == MARK);
    let (at, _) = places.next().context("no place for settings")?;
    ensure!(places.next().is_none(), "two places for settings");
    let padded = settings.bytes().chain(std::iter::repeat(0));
    let place = component.iter_mut().skip(at).take(BYTES);
    for (byte, new) in place.zip(padded) {
        *byte = new;
    }
    Ok(component)
}

/// The digest of a component, as an operator finds it out.
pub(crate) fn sha256(component: &[u8]) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), component)?;
    let said = Command::new("sha256sum").arg(file.path()).output()?;
    let said = String::from_utf8(said.stdout)?;
    let digest = said.split_whitespace().next();
    Ok(digest.context("sha256sum says nothing")?.to_owned())
}

/// A node, and its policy directory.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) node: Node,
    pub(crate) policies: PathBuf,
}

impl Rig {
    /// A node that was started with these files, on these flags besides.
    pub(crate) fn start(files: &[(&str, &[u8])], flags: &[(&str, &str)]) -> Result<Self> {
        let builder = Node::builder()?.gpus(4);
        let policies = builder.dir().join("policies");
        std::fs::create_dir(&policies)?;
        for (file, bytes) in files {
            std::fs::write(policies.join(file), bytes)?;
        }
        Self::on(policies, flags)(builder)
    }

    /// The same, of a builder whose directory is there.
    pub(crate) fn on(
        policies: PathBuf,
        flags: &[(&str, &str)],
    ) -> impl FnOnce(device_api_tests::Builder) -> Result<Self> {
        move |builder| {
            let mut builder = builder
                .flag("policy-dir", policies.to_string_lossy())
                .flag("policy-deadline", DEADLINE);
            for (flag, value) in flags {
                builder = builder.flag(flag, value);
            }
            let node = builder.start()?;
            Ok(Self { node, policies })
        }
    }

    /// A client, once every GPU is Healthy and each policy of the set has its seat: the daemon starts without
    /// those that it has to compile first.
    pub(crate) async fn ready(&self) -> Result<Native> {
        let mut client = self.node.healthy().await?;
        client.reload().await?;
        Ok(client)
    }

    /// Puts a file there in one step.
    pub(crate) fn put(&self, file: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        put(&self.policies, file, bytes.as_ref())
    }

    pub(crate) fn remove(&self, file: &str) -> Result<()> {
        Ok(std::fs::remove_file(self.policies.join(file))?)
    }

    /// Puts a version of the tally policy into its file, and has it taken up.
    pub(crate) async fn swap_to(&self, client: &mut Native, settings: &str) -> Result<String> {
        self.put("tally.wasm", tally(settings)?)?;
        let report = client.reload().await?;
        let outcome = outcome(&report, "tally")?;
        ensure!(outcome.change() == PolicyChange::Swapped, "{outcome:?}");
        Ok(outcome.digest)
    }

    /// An XID, by NVML only, so that it is one signal.
    pub(crate) fn xid(&self, gpu: u32, code: u64) -> Result<()> {
        let answer = self.node.sim()?.request(&Request::Xid {
            gpu,
            codes: vec![code],
            count: 1,
            only: Some(Only::Nvml),
        })?;
        ensure!(answer.delivered == Some(true), "{answer:?}");
        Ok(())
    }

    /// Waits until who owns that condition has answered one more fault.
    pub(crate) async fn is_asked(&self, type_: &str) -> Result<()> {
        let mut client = self.node.native().await?;
        let name = self.node.uuid(0)?;
        let gpu = client.get(&name).await?;
        let said = condition_of(&gpu, type_).map(|condition| condition.message.clone());
        let mut watch = client.watch(0).await?;
        self.xid(0, 13)?;
        let other = |condition: &Condition| Some(&condition.message) != said.as_ref();
        self.until(&mut watch, 0, type_, other).await?;
        Ok(())
    }

    /// What `devicectl` says, and its exit code.
    pub(crate) fn devicectl(&self, args: &[&str]) -> Result<(Option<i32>, String)> {
        let output = Command::new(binary("devicectl")?)
            .arg("--socket")
            .arg(self.node.socket())
            .args(args)
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    /// Waits until a GPU's condition is as wanted: the condition.
    pub(crate) async fn until(
        &self,
        watch: &mut Watch,
        gpu: u32,
        type_: &str,
        mut wanted: impl FnMut(&Condition) -> bool,
    ) -> Result<Condition> {
        let name = self.node.uuid(gpu)?;
        let mut last = None;
        let found = watch
            .until(&name, &format!("as wanted in {type_}"), |gpu: &Gpu| {
                last = condition_of(gpu, type_).cloned();
                last.as_ref().is_some_and(&mut wanted)
            })
            .await;
        let gpu = found.with_context(|| format!("last it was {last:?}"))?;
        condition_of(&gpu, type_).cloned().context("gone")
    }

    /// Waits until the tally policy has counted so much, and no more, on a GPU: `31=4`.
    pub(crate) async fn counted(&self, watch: &mut Watch, gpu: u32, words: &str) -> Result<()> {
        let counted = |condition: &Condition| has_words(&condition.message, words);
        self.until(watch, gpu, "TallyCount", counted).await?;
        Ok(())
    }
}

/// Whether all words are words of the text.
pub(crate) fn has_words(text: &str, words: &str) -> bool {
    let all: Vec<&str> = text.split_whitespace().collect();
    words.split_whitespace().all(|word| all.contains(&word))
}

/// As a ConfigMap's mount would, or `mv`.
pub(crate) fn put(policies: &Path, file: &str, bytes: &[u8]) -> Result<()> {
    let hidden = policies.join(format!(".{file}"));
    std::fs::write(&hidden, bytes)?;
    Ok(std::fs::rename(hidden, policies.join(file))?)
}

/// What a reload did to one policy.
pub(crate) fn outcome(
    report: &ReloadPoliciesResponse,
    name: &str,
) -> Result<device_api_proto::native::PolicyOutcome> {
    let mut outcomes = report.outcomes.iter();
    let found = outcomes.find(|outcome| outcome.name == name);
    found
        .cloned()
        .with_context(|| format!("nothing of {name} in {report:?}"))
}

/// The digest of the version that is asked.
pub(crate) fn active(policy: &Policy) -> Result<&str> {
    let active = policy.active.as_ref();
    Ok(&active
        .with_context(|| format!("nobody is asked: {policy:?}"))?
        .digest)
}

/// It is asked, in this version, as the site wants it.
pub(crate) fn is_running(policy: &Policy, digest: &str) -> Result<()> {
    ensure!(active(policy)? == digest, "not {digest}: {policy:?}");
    ensure!(policy.phase() == PolicyPhase::Running, "{policy:?}");
    Ok(())
}
