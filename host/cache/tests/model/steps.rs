//! What each step asks of the cache and of the model.

use super::*;

/// An answer, as the model gives it.
fn refusal<T>(answer: Result<T, ApiError>) -> Result<T, Refusal> {
    answer.map_err(|error| match error {
        ApiError::NotFound { .. } => Refusal::NotFound,
        ApiError::AlreadyExists { .. } => Refusal::AlreadyExists,
        ApiError::Conflict { .. } => Refusal::Conflict,
        ApiError::Invalid { .. } => Refusal::Invalid,
        ApiError::Forbidden { .. } => Refusal::Forbidden,
        other @ (ApiError::NoPolicy { .. }
        | ApiError::Precondition { .. }
        | ApiError::Exhausted { .. }
        | ApiError::OutOfRange { .. }
        | ApiError::Unavailable { .. }) => panic!("{other}"),
    })
}

impl Rig {
    pub(crate) async fn take(&mut self, step: Step) {
        match step {
            Step::Upsert { device: n, info: i } => {
                self.cache.upsert_device(info(n, i)).unwrap();
                let changes = self.model.upsert(n, i);
                self.published(changes, true);
            }
            Step::Judge {
                device: n,
                type_,
                state,
                reason: r,
            } => {
                judge(&self.cache, &device(n), type_, state, reason(r));
                let changes = self.model.judge(n, type_, state, reason(r));
                self.published(changes, true);
            }
            Step::Call(call) => self.call(call).await,
            Step::Term(term) => self.term(term).await,
            Step::Signal {
                device,
                state,
                in_time,
            } => self.signal(device, state, in_time).await,
            Step::Watch {
                from,
                selection,
                exact,
            } => self.watch(from, selection, exact).await,
            Step::Next { watch } => {
                let present = self.state_at(self.model.version);
                if let Some(at) = watch.checked_rem(self.watches.len())
                    && !self.watches[at].check(&present)
                {
                    self.watches.remove(at);
                }
            }
            Step::Restart { rebooted, gap } => self.restart(rebooted, gap),
        }
    }

    async fn call(&mut self, call: Call) {
        match call {
            Call::Create {
                name,
                device,
                exclusive,
            } => self.create(name, device, exclusive).await,
            Call::Delete { name, expected } => {
                let expected = self.version_of(name, expected);
                let key = key(name);
                let version = expected.map(ResourceVersion);
                let answer = self.cache.delete(&caller(0, 1), &key, version).await;
                let changes = self.model.delete(name, expected);
                self.same(answer, changes);
            }
            Call::Condition {
                provider,
                name,
                type_,
                state,
                reason: r,
            } => {
                let said = provider_says(type_, state, reason(r));
                let caller = caller(provider, 1);
                let answer = self.cache.update_condition(&caller, &key(name), said).await;
                let write = Write {
                    provider,
                    connection: 1,
                    name,
                    expected: None,
                    types: vec![(type_, state, reason(r).to_owned())],
                    lenient: false,
                };
                self.wrote(answer, &write);
            }
            Call::Status {
                provider,
                connection,
                name,
                expected,
                types,
            } => {
                let expected = self.version_of(name, expected);
                let because = reason(false).to_owned();
                let types = types
                    .into_iter()
                    .map(|(type_, state)| (type_, state, because.clone()));
                let write = Write {
                    provider,
                    connection: u64::from(connection),
                    name,
                    expected,
                    types: types.collect(),
                    lenient: true,
                };
                self.update_status(write).await;
            }
        }
    }

    /// Both answered alike, and the changes are published.
    fn same<T>(&mut self, answer: Result<T, ApiError>, changes: Result<Changes, Refusal>) {
        let answered = refusal(answer).map(drop);
        assert_eq!(answered, changes.as_ref().map(|_| ()).map_err(|e| *e));
        self.published(changes.unwrap_or_default(), true);
    }

    async fn create(&mut self, name: Name, of: Device, exclusive: bool) {
        let creation = Creation {
            key: key(name),
            uuid: device(of),
            device: None,
        };
        let answer = self.cache.create(&caller(0, 1), creation, exclusive).await;
        let changes = self.model.create(name, of, exclusive);
        if let (Ok((gpu, created)), Ok(changes)) = (&answer, &changes) {
            assert_eq!(*created, !changes.is_empty());
            assert_eq!(gpu.version.0, self.model.objects[&name].1);
        }
        self.same(answer, changes);
    }

    fn wrote(&mut self, answer: Result<Arc<Gpu>, ApiError>, write: &Write) {
        let host_owned: Vec<Type> = (0..HOST_TYPES).collect();
        let changes = self.model.write(write, &host_owned);
        if let Ok(gpu) = &answer {
            let version = self.model.objects[&write.name].1;
            assert_eq!(gpu.version.0, version, "the answer is what was written");
        }
        self.same(answer, changes);
    }

    async fn update_status(&mut self, write: Write) {
        let update = StatusUpdate {
            key: key(write.name),
            expected: write.expected.map(ResourceVersion),
            conditions: write
                .types
                .iter()
                .map(|(type_, state, reason)| provider_says(*type_, *state, reason))
                .collect(),
            merge: Merge::Lenient,
        };
        let caller = caller(write.provider, write.connection);
        let answer = self.cache.update_status(&caller, update).await;
        self.wrote(answer, &write);
    }

    async fn term(&mut self, term: Term) {
        match term {
            Term::Register { provider, seconds } => {
                let duration = Duration::from_secs(seconds);
                let lease = self
                    .cache
                    .register_provider(Registration {
                        provider: provider_name(provider),
                        identity: provider_name(provider),
                        duration,
                    })
                    .await
                    .unwrap();
                self.lease_ids.insert(provider, lease.id);
                self.model.register(provider, duration);
            }
            Term::Heartbeat { provider } => {
                let Some(id) = self.lease_ids.get(&provider) else {
                    return;
                };
                let renewed = self.cache.heartbeat(id).await.is_ok();
                let now = self.model.now;
                let lease = self.model.leases.get_mut(&provider);
                assert_eq!(renewed, lease.is_some(), "a lease is there while it runs");
                if let Some(lease) = lease {
                    lease.ends = now + lease.duration;
                }
            }
            Term::Pass { seconds } => {
                let time = Duration::from_secs(seconds);
                self.clock.advance(time);
                self.cache.expire_leases();
                let changes = self.model.pass(time);
                self.published(changes, false);
            }
            Term::Forget { provider } => {
                let answer = self.cache.forget_provider(&provider_name(provider)).await;
                let changes = self.model.forget(provider);
                let answered = refusal(answer).map(drop);
                assert_eq!(answered, changes.as_ref().map(|_| ()).map_err(|e| *e));
                self.published(changes.unwrap_or_default(), false);
            }
        }
    }

    /// Reads of that device wait until it is decided, or until the bound passes, and no other's do.
    async fn signal(&mut self, n: Device, state: Judgement, in_time: bool) {
        self.signal += 1;
        let (uuid, seq) = (device(n), SignalSeq(self.signal));
        self.cache.raise(&uuid, seq);
        let shows = |(_, (of, _)): &(&Name, &(Device, u64))| *of == n;
        let shown = self.model.objects.iter().find(shows).map(|(name, _)| *name);
        let other = self.model.objects.iter().find(|o| !shows(o));
        if let Some((name, _)) = other {
            assert!(poll(self.cache.get(&key(*name))).is_ready(), "no wait");
        }
        let cache = self.cache.clone();
        let all = Selection::all();
        let mut list = std::pin::pin!(cache.list(&all));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            list.as_mut().poll(&mut cx).is_pending(),
            "a list waits for all"
        );
        let changes = if in_time {
            judge(&self.cache, &uuid, 0, state, "Decided");
            assert!(list.as_mut().poll(&mut cx).is_pending(), "not yet settled");
            self.cache.settle(&uuid, seq);
            self.model.judge(n, 0, state, "Decided")
        } else {
            // The clock of the runtime is stopped: it moves on to the bound when all wait.
            if let Some(name) = shown {
                self.cache.get(&key(name)).await.unwrap();
            }
            self.model.judge(n, 0, Judgement::Problem, "Assumed")
        };
        let listing = list.await;
        self.published(changes, true);
        assert_eq!(
            listing.version.0, self.model.version,
            "what is decided is read"
        );
    }

    async fn watch(&mut self, from: From, n: u8, exact: bool) {
        let version = match from {
            From::Now => None,
            From::Back(by) => Some(self.model.version.saturating_sub(by)),
            From::Future => Some(self.model.version + 1),
            From::RunBefore => Some(self.start.0),
            From::Lost if self.start.0 + 1 < self.first => Some(self.start.0 + 1),
            From::Lost => return,
        };
        let request = WatchRequest {
            selection: selection(n),
            from: version.map_or(WatchFrom::Now, |v| WatchFrom::After(ResourceVersion(v))),
            exact,
            bookmarks: true,
        };
        let answer = self.cache.watch(request).await;
        let exact = exact.then_some(EXACT);
        let Some(version) = version else {
            let present = self.state_at(self.model.version);
            let mut added: Vec<Event> = present
                .values()
                .map(|gpu| Event {
                    type_: EventType::Added,
                    gpu: gpu.clone(),
                    before: None,
                })
                .collect();
            added.sort_by_key(|event| event.gpu.version);
            let nothing = Objects::new();
            let watcher = answer.unwrap();
            let watched = Watched::new(watcher, selection(n), &nothing, 0, &added, exact);
            self.watches.push(watched.with_mark());
            return;
        };
        let oldest = self.oldest();
        let is_lost = oldest < version && version < self.first;
        let is_kept = (oldest..=self.model.version).contains(&version) && !is_lost;
        match answer {
            Err(ApiError::OutOfRange { .. }) => assert!(!is_kept, "{version} is kept"),
            Err(other) => panic!("{other}"),
            Ok(watcher) => {
                assert!(is_kept, "{version} is not kept: changes are skipped");
                let known = self.state_at(version);
                let later = self.log.iter().filter(|e| e.gpu.version.0 > version);
                let missed: Vec<Event> = later.cloned().collect();
                self.watches.push(Watched::new(
                    watcher,
                    selection(n),
                    &known,
                    version,
                    &missed,
                    exact,
                ));
            }
        }
    }

    /// A kill, and another run on what was durable.
    fn restart(&mut self, rebooted: bool, gap: u64) {
        let base = self.model.version + gap;
        let written_in = BootId(self.boot.to_string().into());
        let start = self.disk.start(base, written_in);
        let durable = start.snapshot.as_ref().map_or(0, |s| s.version.0);
        let before = self.state_at(self.model.version);
        self.boot += u32::from(rebooted);
        self.watches.clear();
        self.model.restart(base, rebooted, &[HOST_TYPES - 1]);
        self.start = (durable, before);
        self.first = base + 1;
        let (cache, witness) = run(start, &self.disk, &self.clock, self.boot);
        (self.cache, self.witness) = (cache, witness);
        let Poll::Ready(Ok(Told::Changes(added))) = poll(self.witness.next()) else {
            assert!(self.model.objects.is_empty(), "what was there is there");
            self.log.clear();
            return;
        };
        self.log = added
            .into_iter()
            .map(|event| Event {
                type_: EventType::Modified,
                before: self.start.1.get(&event.gpu.key).cloned(),
                ..event
            })
            .collect();
        for (version, event) in (self.first + 1..).zip(&self.log) {
            assert_eq!(event.gpu.version.0, version, "one version for each object");
        }
    }
}
