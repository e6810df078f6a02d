//! The table of sessions: slots, the lists of those at rest, and who is where.
//!
//! A slot's number is part of its peer's Connection ID, so that no map is needed to find a session by it. Live and
//! frozen sessions stand in lists by the time of their last use, the longest unused first.
//!
//! Invariants: a slot in use that is no handshake is in exactly one list; an address leads to a session only where the
//! peer has no Connection ID.

use std::{collections::HashMap, net::SocketAddr};

use crate::{
    arena::{Arena, Cell},
    context::Context,
    handshake::Handshake,
    server::{Identity, SessionId},
};

/// No slot.
const NONE: u32 = u32::MAX;
/// Slots have numbers of 24 bits.
pub(crate) const MAX_SLOTS: usize = 1 << 24;

/// What a slot holds.
pub(crate) enum State {
    Free,
    Handshake(Box<Handshake>),
    Live(Box<Live>),
    Frozen(Cell),
}

/// A session that needs nothing but a record to go on.
pub(crate) struct Live {
    pub(crate) context: Context,
    pub(crate) identity: Identity,
}

/// One slot.
pub(crate) struct Slot {
    pub(crate) state: State,
    pub(crate) address: SocketAddr,
    /// The newest record that was authentic.
    pub(crate) newest: u64,
    /// Seconds since the endpoint began.
    pub(crate) used_at: u32,
    pub(crate) generation: u32,
    pub(crate) cid_tail: u16,
    pub(crate) has_cid: bool,
    list: Option<ListId>,
    before: u32,
    behind: u32,
}

/// The lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListId {
    /// Live, to be frozen in their turn.
    Live,
    /// Live, and not to be frozen, by a suite that cannot be.
    Fixed,
    /// Live, and nothing was said in it: whether the peer has finished its handshake is not known.
    Silent,
    Frozen,
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
    len: usize,
}

impl Default for List {
    fn default() -> Self {
        Self {
            first: NONE,
            last: NONE,
            len: 0,
        }
    }
}

/// All slots.
pub(crate) struct Sessions {
    slots: Vec<Slot>,
    free: Vec<u32>,
    lists: [List; 4],
    by_address: HashMap<SocketAddr, u32>,
    pub(crate) arena: Arena,
    max: usize,
}

impl Sessions {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            lists: [List::default(); 4],
            by_address: HashMap::new(),
            arena: Arena::default(),
            max: max.min(MAX_SLOTS),
        }
    }

    /// The slot that [`Sessions::allocate`] will give; `None` where all are in use.
    pub(crate) fn next_free(&self) -> Option<u32> {
        let next = (self.slots.len() < self.max).then_some(self.slots.len());
        let last = self.free.last().copied();
        last.or_else(|| u32::try_from(next?).ok())
    }

    /// A slot for a handshake, or `None` where all are in use.
    pub(crate) fn allocate(&mut self, address: SocketAddr, cid_tail: u16) -> Option<u32> {
        let index = self.next_free()?;
        if self.free.pop().is_none() {
            self.slots.push(Slot::free(address));
        }
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.address = address;
        slot.cid_tail = cid_tail;
        slot.newest = 0;
        slot.has_cid = false;
        Some(index)
    }

    /// This slot, which must be free, for a session that comes from before a restart.
    pub(crate) fn allocate_at(&mut self, index: u32, address: SocketAddr, cid_tail: u16) -> bool {
        let at = index as usize;
        if at >= self.max {
            return false;
        }
        while self.slots.len() <= at {
            if let Ok(next) = u32::try_from(self.slots.len()) {
                self.free.push(next);
            }
            self.slots.push(Slot::free(address));
        }
        let Some(place) = self.free.iter().rposition(|free| *free == index) else {
            return false;
        };
        self.free.swap_remove(place);
        let slot = &mut self.slots[at];
        slot.generation = slot.generation.wrapping_add(1);
        slot.address = address;
        slot.cid_tail = cid_tail;
        true
    }

    /// Empties a slot and gives what was in it.
    pub(crate) fn release(&mut self, index: u32) -> State {
        self.set_list(index, None);
        let slot = &mut self.slots[index as usize];
        let state = std::mem::replace(&mut slot.state, State::Free);
        let address = slot.address;
        if self.by_address.get(&address) == Some(&index) {
            self.by_address.remove(&address);
        }
        self.free.push(index);
        state
    }

    /// Sessions in memory as the library has them.
    pub(crate) fn live(&self) -> usize {
        let lists = [ListId::Live, ListId::Fixed, ListId::Silent];
        lists.into_iter().map(|list| self.len(list)).sum()
    }

    pub(crate) fn slot(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)
    }

    pub(crate) fn id(&self, index: u32) -> SessionId {
        let generation = self.slots[index as usize].generation;
        SessionId(u64::from(generation) << 32 | u64::from(index))
    }

    /// The slot of a session that is still there.
    pub(crate) fn find(&self, id: SessionId) -> Option<u32> {
        let index = id.slot();
        let slot = self.slots.get(index as usize)?;
        let is_there = !matches!(slot.state, State::Free) && self.id(index) == id;
        is_there.then_some(index)
    }

    pub(crate) fn at_address(&self, address: SocketAddr) -> Option<u32> {
        self.by_address.get(&address).copied()
    }

    /// Has records from this address go to this slot.
    pub(crate) fn bind_address(&mut self, index: u32) {
        let address = self.slots[index as usize].address;
        self.by_address.insert(address, index);
    }

    /// Puts a slot at the end of a list, or into none.
    pub(crate) fn set_list(&mut self, index: u32, list: Option<ListId>) {
        let (from, before, behind) = {
            let slot = &mut self.slots[index as usize];
            (
                std::mem::replace(&mut slot.list, list),
                slot.before,
                slot.behind,
            )
        };
        if let Some(from) = from {
            match before {
                NONE => self.lists[from as usize].first = behind,
                before => self.slots[before as usize].behind = behind,
            }
            match behind {
                NONE => self.lists[from as usize].last = before,
                behind => self.slots[behind as usize].before = before,
            }
            self.lists[from as usize].len -= 1;
        }
        let Some(list) = list else { return };
        let list = &mut self.lists[list as usize];
        let last = std::mem::replace(&mut list.last, index);
        list.len += 1;
        if last == NONE {
            list.first = index;
        } else {
            self.slots[last as usize].behind = index;
        }
        let slot = &mut self.slots[index as usize];
        (slot.before, slot.behind) = (last, NONE);
    }

    /// The one of a list that was not used for longest.
    pub(crate) fn first(&self, list: ListId) -> Option<u32> {
        let first = self.lists[list as usize].first;
        (first != NONE).then_some(first)
    }

    /// When it was used.
    pub(crate) fn first_used_at(&self, list: ListId) -> Option<u32> {
        let first = self.first(list)?;
        self.get(first).map(|slot| slot.used_at)
    }

    pub(crate) fn len(&self, list: ListId) -> usize {
        self.lists[list as usize].len
    }

    /// Slots in use, handshakes too.
    pub(crate) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All slots in use.
    pub(crate) fn used_slots(&self) -> Vec<u32> {
        let slots = (0..).zip(&self.slots);
        let used = slots.filter(|(_, slot)| !matches!(slot.state, State::Free));
        used.map(|(index, _)| index).collect()
    }
}

impl Slot {
    fn free(address: SocketAddr) -> Self {
        Self {
            state: State::Free,
            address,
            newest: 0,
            used_at: 0,
            generation: 0,
            cid_tail: 0,
            has_cid: false,
            list: None,
            before: NONE,
            behind: NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        "192.0.2.1:1".parse().unwrap()
    }

    #[test]
    fn lists_keep_the_order_of_use() {
        let mut sessions = Sessions::new(8);
        let all: Vec<_> = (0..3)
            .map(|_| sessions.allocate(address(), 0).unwrap())
            .collect();
        for index in &all {
            sessions.set_list(*index, Some(ListId::Live));
        }
        sessions.set_list(all[0], Some(ListId::Live));
        assert_eq!(
            sessions.first(ListId::Live),
            Some(all[1]),
            "the first was used again"
        );
        sessions.set_list(all[2], Some(ListId::Frozen));
        sessions.set_list(all[1], None);
        assert_eq!(sessions.first(ListId::Live), Some(all[0]));
        assert_eq!(
            (sessions.len(ListId::Live), sessions.len(ListId::Frozen)),
            (1, 1)
        );
        sessions.set_list(all[0], None);
        assert_eq!(sessions.first(ListId::Live), None);
    }

    #[test]
    fn a_slot_that_was_used_again_is_not_the_session_it_was() {
        let mut sessions = Sessions::new(1);
        let index = sessions.allocate(address(), 0).unwrap();
        assert!(sessions.allocate(address(), 0).is_none(), "no room");
        let cell = sessions.arena.put(b"frozen").unwrap();
        sessions.slot(index).state = State::Frozen(cell);
        let id = sessions.id(index);
        assert_eq!(sessions.find(id), Some(index));
        let State::Frozen(cell) = sessions.release(index) else {
            panic!("it was frozen");
        };
        sessions.arena.free(cell);
        assert_eq!(sessions.find(id), None);
        let again = sessions.allocate(address(), 0).unwrap();
        assert_eq!(again, index);
        assert_ne!(sessions.id(again), id);
    }

    #[test]
    fn a_session_from_before_gets_its_slot_once() {
        let mut sessions = Sessions::new(8);
        assert!(sessions.allocate_at(5, address(), 7));
        assert!(!sessions.allocate_at(5, address(), 7));
        assert!(!sessions.allocate_at(8, address(), 7), "no room");
        let cell = sessions.arena.put(b"frozen").unwrap();
        sessions.slot(5).state = State::Frozen(cell);
        assert_eq!(sessions.used(), 1);
        assert_eq!(sessions.used_slots(), [5]);
        assert!((0..7).all(|_| {
            sessions
                .allocate(address(), 0)
                .is_some_and(|index| index != 5)
        }));
    }
}
