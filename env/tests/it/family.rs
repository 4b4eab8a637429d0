//! Generated scenarios: accepted, playable, apart from each other, and within their ranges.

use std::collections::BTreeSet;

use remora_env::family::{Family, Stretch, USUAL};
use remora_env::outcome::End;
use remora_env::scenario::SiteFile;
use remora_env::{Scenario, Scenarios, contract};

/// How many members of each family are looked at.
const MEMBERS: u64 = 150;

fn text(family: Family, index: u64) -> String {
    Scenario::member(family, index).to_toml()
}

#[test]
fn members_read_back_as_they_were_made() {
    for family in Family::ALL {
        for index in 0..MEMBERS {
            let text = text(family, index);
            let read = Scenario::parse(&text, family.name(), None).unwrap();
            assert_eq!(read.to_toml(), text);
        }
    }
}

#[test]
fn families_share_no_member_and_a_member_is_always_the_same() {
    let body = |family, index| text(family, index).split_once("[topology").unwrap().1.to_owned();
    let all: BTreeSet<String> =
        Family::ALL.iter().flat_map(|&family| (0..MEMBERS).map(move |index| body(family, index))).collect();
    assert_eq!(all.len() as u64, 3 * MEMBERS);
    assert_eq!(text(Family::Train, 5), text(Family::Train, 5));
}

/// Device kinds of a scenario, and how many nodes it has.
fn kinds(scenario: &Scenario) -> (BTreeSet<String>, usize) {
    let mut kinds = BTreeSet::new();
    let mut sites: Vec<&SiteFile> = scenario.file.topology.sites.iter().collect();
    while let Some(site) = sites.pop() {
        kinds.extend(site.nodes.iter().map(|group| group.kind.clone()));
        sites.extend(&site.sites);
    }
    (kinds, scenario.world(0).topology.nodes.len())
}

#[test]
fn only_the_stretched_half_of_the_test_family_leaves_the_ranges() {
    for family in Family::ALL {
        for index in 0..MEMBERS {
            let scenario = Scenario::member(family, index);
            let (kinds, nodes) = kinds(&scenario);
            let unseen = kinds.iter().any(|kind| !USUAL.contains(&kind.as_str()));
            let cells = scenario.file.topology.sites.iter().filter(|site| site.name.starts_with("cell"));
            let thin = cells.clone().any(|site| site.uplink.up_mbps < 8.0);
            match family.stretch(index) {
                // Counts are rounded, and storage boxes come on top.
                Some(Stretch::Large) => assert!((180..=450).contains(&nodes), "{}: {nodes}", scenario.name()),
                Some(Stretch::Thin) => {
                    assert!(cells.clone().all(|site| (2.0..=25.0).contains(&site.uplink.up_mbps)));
                }
                Some(Stretch::Overloaded) => assert!(scenario.file.summary.contains("load 1.")),
                Some(Stretch::Unseen) | None => (),
            }
            let stretch = family.stretch(index);
            assert!(!unseen || stretch == Some(Stretch::Unseen), "{}: {kinds:?}", scenario.name());
            assert!(!thin || stretch == Some(Stretch::Thin), "{}", scenario.name());
            assert!((5..=230).contains(&nodes) || stretch == Some(Stretch::Large), "{}", scenario.name());
        }
    }
}

/// Every task can run somewhere, and the simulator keeps its promises on all of them.
#[test]
fn members_can_be_played() {
    for family in Family::ALL {
        for index in 0..40 {
            let played = contract::check(&Scenario::member(family, index), 1, 40).unwrap();
            let unplaceable = End::ALL.iter().position(|end| *end == End::Unplaceable).unwrap();
            assert_eq!(played.ends[unplaceable], 0, "{}/{index}", family.name());
        }
    }
}

#[test]
fn a_family_is_addressed_by_name_and_number() {
    assert_eq!(Scenario::load("test-family/3").unwrap().name(), "test-family/3");
    let family = Scenarios::load("train-family").unwrap();
    assert_eq!(family.at(9).name(), "train-family/9");
    for (name, problem) in [
        ("train-family", "train-family is a family: name a member, for example train-family/0"),
        (
            "train-family/x",
            "no scenario is called \"train-family/x\"; members of train-family are numbered from 0",
        ),
        ("train-famly", "no scenario is called \"train-famly\"; did you mean \"train-family\"?"),
    ] {
        assert_eq!(Scenario::load(name).unwrap_err().to_string(), problem);
    }
}
