//! Which runs there are: every scenario on every surface, then mixed until every two surfaces have
//! met, each in the part of the other once. The same scenarios always give the same plan.

use std::collections::{BTreeMap, BTreeSet};

use gitlock::ErrorCode;

use super::{
    play::Cast,
    scenario::{Action, Scenario},
    site::Site,
    table::Surface,
    tool,
};

/// Every scenario with several roles is played mixed at least so often.
const MIXED_AT_LEAST: usize = 2;

/// How much of it all is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything, until every two surfaces have met.
    Whole,
    /// Some scenarios, or some surfaces.
    Part,
    /// Every scenario once, with different surfaces in turn.
    Once,
}

/// One run.
pub(super) struct Run<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) cast: Cast,
}

/// All runs, and what is left out, in words.
pub(super) struct Plan<'a> {
    pub(super) runs: Vec<Run<'a>>,
    pub(super) skipped: Vec<String>,
    /// The codes that only this machine keeps from being raised.
    pub(super) excused: BTreeSet<ErrorCode>,
    /// Two surfaces that don't meet in any run, in this order.
    pub(super) strangers: Vec<(&'static str, &'static str)>,
}

/// Why a scenario isn't for a surface, if it isn't.
fn unfit(scenario: &Scenario, surface: &Surface) -> Option<String> {
    if let Some((_, why)) = scenario.except.iter().find(|(name, _)| *name == surface.name) {
        return Some(why.clone());
    }
    let asked = scenario.steps.iter().filter_map(|step| match &step.action {
        Action::Ask { operation, .. } => surface.cannot(operation.name),
        _ => None,
    });
    asked.map(str::to_owned).next()
}

/// Plans the runs of these scenarios on these surfaces; of the whole set until all have met.
pub(super) fn plan<'a>(
    scenarios: &'a [&'a Scenario],
    surfaces: &[&'static Surface],
    extent: Extent,
    site: &Site,
) -> Plan<'a> {
    let mut plan = Plan { runs: Vec::new(), skipped: Vec::new(), excused: BTreeSet::new(), strangers: Vec::new() };
    let mut playable = Vec::new();
    for &scenario in scenarios {
        let needs = scenario.steps.iter().find_map(|step| match &step.action {
            Action::Tool { operation, .. } => tool::missing(operation.name),
            _ => None,
        });
        if let (Some(why), Site::There { .. }) = (&scenario.only_here, site) {
            plan.skipped.push(format!("{}: not at a remote: {why}", scenario.name));
            plan.excused.extend(scenario.codes());
            continue;
        }
        if let (Some(why), Site::Here) = (&scenario.only_there, site) {
            plan.skipped.push(format!("{}: only at a remote: {why}", scenario.name));
            plan.excused.extend(scenario.codes());
            continue;
        }
        let other_refs = scenario.only_files.as_ref().filter(|_| crate::git::ref_format() != "files");
        if let Some(why) = other_refs {
            plan.skipped.push(format!("{}: not for refs of this format: {why}", scenario.name));
            plan.excused.extend(scenario.codes());
            continue;
        }
        if let Some(why) = needs {
            plan.skipped.push(format!("{}: SKIPPED on this machine: {why}", scenario.name));
            plan.excused.extend(scenario.codes());
            continue;
        }
        let mut fit = Vec::new();
        for surface in surfaces {
            match unfit(scenario, surface) {
                None => fit.push(*surface),
                Some(why) => plan.skipped.push(format!("{}: not for {}: {why}", scenario.name, surface.name)),
            }
        }
        let alone: &[&Surface] = match extent {
            // Those with several roles are mixed below.
            Extent::Once if scenario.roles.len() > 1 && fit.len() > 1 => &[],
            Extent::Once => fit.get(playable.len() % fit.len().max(1)).map_or(&[], std::slice::from_ref),
            _ => &fit,
        };
        plan.runs.extend(alone.iter().map(|surface| Run { scenario, cast: vec![*surface; scenario.roles.len()] }));
        playable.push((scenario, fit));
    }
    let most = match extent {
        Extent::Whole => usize::MAX,
        Extent::Part => MIXED_AT_LEAST,
        Extent::Once => 1,
    };
    mix(&playable, surfaces, most, &mut plan);
    plan
}

fn mix<'a>(
    playable: &[(&'a Scenario, Vec<&'static Surface>)],
    surfaces: &[&'static Surface],
    most: usize,
    plan: &mut Plan<'a>,
) {
    let mut strangers: BTreeSet<_> = surfaces
        .iter()
        .flat_map(|one| surfaces.iter().map(move |other| (one.name, other.name)))
        .filter(|(one, other)| one != other)
        .collect();
    let mut parts: BTreeMap<&str, usize> = BTreeMap::new();
    for round in 0..most {
        let before = strangers.len();
        for (scenario, fit) in playable {
            let best = casts(fit, scenario.roles.len()).max_by_key(|cast| {
                let news = pairs(cast).filter(|pair| strangers.contains(pair)).count();
                let played: usize = cast.iter().map(|surface| parts.get(surface.name).unwrap_or(&0)).sum();
                (news, std::cmp::Reverse(played))
            });
            let Some(cast) = best else { continue };
            let news = pairs(&cast).any(|pair| strangers.contains(&pair));
            if round >= MIXED_AT_LEAST && !news {
                continue;
            }
            pairs(&cast).for_each(|pair| _ = strangers.remove(&pair));
            cast.iter().for_each(|surface| *parts.entry(surface.name).or_default() += 1);
            plan.runs.push(Run { scenario, cast });
        }
        if round + 1 >= MIXED_AT_LEAST && (strangers.is_empty() || strangers.len() == before) {
            break;
        }
    }
    plan.strangers = strangers.into_iter().collect();
}

/// Every cast of different surfaces.
fn casts<'a>(fit: &'a [&'static Surface], roles: usize) -> impl Iterator<Item = Cast> + 'a {
    let count = if roles < 2 { 0 } else { fit.len().pow(u32::try_from(roles).unwrap_or(0)) };
    (0..count).filter_map(move |mut number| {
        let mut cast: Cast = Vec::with_capacity(roles);
        for _ in 0..roles {
            let surface = fit[number % fit.len()];
            if cast.iter().any(|other| other.name == surface.name) {
                return None;
            }
            cast.push(surface);
            number /= fit.len();
        }
        Some(cast)
    })
}

/// Who meets whom: who acts first, and who comes after.
fn pairs(cast: &Cast) -> impl Iterator<Item = (&'static str, &'static str)> + '_ {
    cast.iter().enumerate().flat_map(|(at, one)| cast[at + 1..].iter().map(|other| (one.name, other.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{scenario::parse, table::SURFACES};

    #[test]
    fn every_two_surfaces_meet_both_ways() {
        let scenario = parse("x", "x", "title: t\nroles: A, B, C\nA: list\nB: list\nC: list").unwrap();
        let scenarios = vec![&scenario; 20];
        let all: Vec<_> = SURFACES.iter().collect();
        let made = plan(&scenarios, &all, Extent::Whole, &Site::Here);
        assert_eq!(made.strangers, []);
        assert!(made.runs.len() >= scenarios.len() * (all.len() + MIXED_AT_LEAST));
        let again = plan(&scenarios, &all, Extent::Whole, &Site::Here);
        let casts = |plan: &Plan<'_>| -> Vec<Vec<&str>> {
            plan.runs.iter().map(|run| run.cast.iter().map(|surface| surface.name).collect()).collect()
        };
        assert_eq!(casts(&made), casts(&again));
    }

    #[test]
    fn once_is_once_and_no_surface_is_left_out() {
        let one = parse("x", "x", "title: t\nroles: A\nA: list").unwrap();
        let two = parse("x", "x", "title: t\nroles: A, B\nA: list\nB: list").unwrap();
        let all: Vec<_> = SURFACES.iter().collect();
        for scenario in [&one, &two] {
            let twenty = vec![scenario; 20];
            let made = plan(&twenty, &all, Extent::Once, &Site::Here);
            assert_eq!(made.runs.len(), 20);
            let used: BTreeSet<&str> = made.runs.iter().flat_map(|run| &run.cast).map(|surface| surface.name).collect();
            assert_eq!(used.len(), all.len());
        }
    }

    #[test]
    fn too_few_scenarios_leave_strangers() {
        let scenario = parse("x", "x", "title: t\nroles: A\nA: list").unwrap();
        let all: Vec<_> = SURFACES.iter().collect();
        assert_eq!(plan(&[&scenario], &all, Extent::Whole, &Site::Here).strangers.len(), all.len() * (all.len() - 1));
    }

    #[test]
    fn what_is_left_out_is_told() {
        let text = "title: t\nroles: A\nexcept: c (a reason)\nA: acquire x\nA: fork x -> FORKED";
        let scenario = parse("x", "x", text).unwrap();
        let scenarios = [&scenario];
        let made = plan(&scenarios, &SURFACES.iter().collect::<Vec<_>>(), Extent::Whole, &Site::Here);
        assert!(made.skipped.iter().any(|line| line == "x: not for c: a reason"), "{:?}", made.skipped);
        assert!(made.skipped.iter().any(|line| line.starts_with("x: not for cli: a command holds nothing")));
        assert!(made.runs.iter().all(|run| !matches!(run.cast[0].name, "c" | "cli")));
    }

    #[test]
    fn what_is_of_this_machine_is_not_played_at_a_remote() {
        let scenario = parse("x", "x", "title: t\nroles: A\nremotes: none (a reason)\nA: try x -> HELD").unwrap();
        let endpoint = crate::servers::Servers::start(&[crate::servers::Kind::Git]).endpoints().remove(0);
        let all: Vec<_> = SURFACES.iter().collect();
        let there = [&scenario];
        let made = plan(&there, &all, Extent::Whole, &Site::at(endpoint, std::path::Path::new("/nowhere")));
        assert_eq!((made.runs.len(), &*made.skipped), (0, &["x: not at a remote: a reason".to_owned()][..]));
        assert!(made.excused.contains(&ErrorCode::Held));
        assert!(!plan(&there, &all, Extent::Whole, &Site::Here).runs.is_empty());
        let scenario = parse("x", "x", "title: t\nroles: A\nremotes: only (a reason)\nA: try x -> HELD").unwrap();
        assert!(scenario.only_there.as_deref() == Some("a reason") && scenario.only_here.is_none());
        assert!(parse("x", "x", "title: t\nroles: A\nremotes: none\nA: list").is_err());
    }
}
