//! What a holder changes besides its locks, so that it can't once it has lost them.

use std::time::Duration;

use crate::{
    error::Result,
    handle::LockHandle,
    lock::{Outcome, Request},
    name::LockName,
    push_spec::PushSpec,
    ref_update::{RefUpdate, RefUpdates},
};

use super::{
    Inner, LockManager,
    commit_loop::Others,
    request,
    tenure::{self, TenureState},
    wait::refused,
};

impl LockManager {
    /// Changes other refs of the repository under a tenure, by its handle or its fingerprint: see
    /// [`LockGuard::update_refs`](super::LockGuard::update_refs). Returns how long the tenure lasts from here on.
    ///
    /// # Errors
    /// As [`LockGuard::update_refs`](super::LockGuard::update_refs), and [`NotOwner`](crate::ErrorCode::NotOwner) if the
    /// tenure is somebody else's.
    pub fn update_refs(&self, handle: &LockHandle, updates: &[RefUpdate], message: Option<&str>) -> Result<Duration> {
        self.under(handle, |inner, names, request| inner.update_refs(names, request, updates, message))
    }

    /// Pushes refs under a tenure, by its handle or its fingerprint: see [`LockGuard::push`](super::LockGuard::push).
    /// Returns how long the tenure lasts from here on.
    ///
    /// Whoever renews the tenure meanwhile makes the push start over: give it a ttl of several times what the
    /// push takes.
    ///
    /// # Errors
    /// As [`LockGuard::push`](super::LockGuard::push), and [`NotOwner`](crate::ErrorCode::NotOwner) if the
    /// tenure is somebody else's.
    pub fn push(&self, handle: &LockHandle, specs: &[PushSpec]) -> Result<Duration> {
        self.under(handle, |inner, names, request| inner.push(names, request, specs, None))
    }

    /// Carries out an extension, and what goes with it, of what a handle's tenure holds.
    fn under(
        &self,
        handle: &LockHandle,
        change: impl FnOnce(&Inner, &[LockName], &Request) -> Result<Vec<Outcome>>,
    ) -> Result<Duration> {
        let (inner, handle) = (self.inner(), self.known(handle)?);
        let names = request::names_of(&handle.names);
        let request = Request::Extend { tenure: handle.tenure(), ttl: None, rebind: None };
        let outcomes = change(inner, &names, &request)?;
        let mut end = u64::MAX;
        for (name, outcome) in names.iter().zip(outcomes) {
            match outcome {
                Outcome::Extended(holder) => end = end.min(holder.end.as_ref().map_or(0, |end| end.at)),
                Outcome::Refused(refusal) => return Err(refused(name, refusal)),
                _ => return Err(tenure::lost_error(name, tenure::TAKEN_AWAY)),
            }
        }
        Ok(Duration::from_millis(end.saturating_sub(inner.commits.clock.boot_ms())))
    }
}

impl Inner {
    /// Carries out an extension of what these names hold, and changes other refs with it.
    pub(super) fn update_refs(
        &self,
        names: &[LockName],
        extension: &Request,
        updates: &[RefUpdate],
        message: Option<&str>,
    ) -> Result<Vec<Outcome>> {
        let message = message.map_or_else(|| format!("git lock: {}", names[names.len() - 1]), str::to_owned);
        let others = RefUpdates::new(updates, message, &self.commits.names)?;
        self.extend_with(names, extension, Others::Updates(&others))
    }

    /// Carries out an extension of what these names hold, and pushes other refs with it. `tenure`: whose renewals
    /// wait meanwhile.
    pub(super) fn push(
        &self,
        names: &[LockName],
        extension: &Request,
        specs: &[PushSpec],
        tenure: Option<&TenureState>,
    ) -> Result<Vec<Outcome>> {
        // The lease is renewed as ever while this takes its time.
        let push = self.commits.store.prepare_push(specs, &self.commits.names)?;
        let _still = tenure.map(TenureState::hold_still);
        if let Some(tenure) = tenure.filter(|tenure| tenure.is_over()) {
            let why = tenure.why_lost().unwrap_or_else(|| tenure::TAKEN_AWAY.to_owned());
            return Err(tenure::lost_error(tenure.name(), &why));
        }
        self.extend_with(names, extension, Others::Push(&*push))
    }

    fn extend_with(&self, names: &[LockName], extension: &Request, others: Others<'_>) -> Result<Vec<Outcome>> {
        let requests = names.iter().map(|name| (name.clone(), extension.clone())).collect();
        self.commits.submit_with(requests, Some(others), &self.actor(), None)
    }
}
