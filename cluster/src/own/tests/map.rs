//! Who owns what: the map of a view's members.

use super::*;

#[test]
fn a_member_more_takes_its_share_and_moves_nothing_else() {
    let layout = Layout::PRODUCT;
    let (three, four) = (seats(&["a", "b", "c"]), seats(&["a", "b", "c", "d"]));
    let (before, after) = (Map::of(layout, &three), Map::of(layout, &four));
    let slots = layout.slots() as u16;
    let moved = (0..slots).filter(|slot| before.owner(*slot) != after.owner(*slot));
    let moved: Vec<u16> = moved.collect();
    assert!(
        moved.iter().all(|slot| after.owner(*slot) == Some(3)),
        "only to the new one"
    );
    for at in 0..4 {
        let share = after.slots_of(at).count() as f64 / f64::from(slots);
        assert!((0.2..0.3).contains(&share), "{at} has {share}");
    }
}

#[test]
fn a_node_without_a_role_gets_no_shard_of_it_and_one_that_leaves_none_at_all() {
    let mut some = seats(&["a", "b", "c"]);
    some[0].roles = Roles::BROKER;
    some[1].leaving = true;
    let map = Map::of(LAYOUT, &some);
    assert!(
        map.slots_of(0)
            .all(|slot| LAYOUT.of(slot).is_some_and(|(group, _)| group == Group::Users))
    );
    assert_eq!(map.slots_of(1).count(), 0);
    some[2].roles = Roles::API;
    assert_eq!(Map::of(LAYOUT, &some).owner(LAYOUT.slot(Group::Index, 1)), None);
}

#[test]
fn of_two_starts_of_one_node_the_last_one_has_its_shards() {
    let two = [seat(1, "a"), seat(2, "b"), seat(3, "a")];
    let (with, without) = (Map::of(LAYOUT, &two), Map::of(LAYOUT, &two[1..]));
    assert_eq!(with.slots_of(0).count(), 0);
    assert!(with.slots_of(2).eq(without.slots_of(1)));
}
