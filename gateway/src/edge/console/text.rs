//! The catalogue: every word that the console shows, by page.
//!
//! A language is one value of [`Texts`]: the compiler says which words it lacks, and which no page uses any more. Words
//! with a gap name it in braces and are completed by [`fill`]. Rules that a field breaks come from the services.

mod access;
mod applications;
mod batches;
pub(super) mod common;
mod deliver;
mod devices;
mod overview;
mod products;
mod resources;
mod tasks;
mod uploads;

use std::fmt::Display;

/// Declares the words of one page and gives them in English.
macro_rules! texts {
    ($(#[$doc:meta])+ $name:ident { $($key:ident: $text:literal,)+ }) => {
        $(#[$doc])+
        #[derive(Debug)]
        pub(in crate::edge::console) struct $name {
            $(pub(in crate::edge::console) $key: &'static str,)+
        }

        impl $name {
            /// English.
            pub(in crate::edge::console) const EN: Self = Self { $($key: $text,)+ };
        }
    };
}
use texts;

/// All words.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) common: common::Common,
    pub(super) nav: common::Nav,
    pub(super) notice: common::Notices,
    pub(super) state: common::States,
    pub(super) fault: common::Faults,
    pub(super) sign_in: common::SignIn,
    pub(super) overview: overview::Overview,
    pub(super) resources: resources::Resources,
    pub(super) deliver: deliver::Deliver,
    pub(super) plan: deliver::Plan,
    pub(super) tasks: tasks::Tasks,
    pub(super) waiting: tasks::Waiting,
    pub(super) failure: tasks::Failures,
    pub(super) uploads: uploads::Uploads,
    pub(super) kinds: products::Kinds,
    pub(super) products: products::Products,
    pub(super) devices: devices::Devices,
    pub(super) register: devices::Register,
    pub(super) credentials: devices::Credentials,
    pub(super) batches: batches::Batches,
    pub(super) applications: applications::Applications,
    pub(super) account: access::Account,
    pub(super) operators: access::Operators,
    pub(super) tokens: access::Tokens,
    pub(super) audit: access::Audit,
    pub(super) nodes: access::Nodes,
}

/// The words that are shown.
pub(super) static TEXTS: Texts = Texts {
    common: common::Common::EN,
    nav: common::Nav::EN,
    notice: common::Notices::EN,
    state: common::States::EN,
    fault: common::Faults::EN,
    sign_in: common::SignIn::EN,
    overview: overview::Overview::EN,
    resources: resources::Resources::EN,
    deliver: deliver::Deliver::EN,
    plan: deliver::Plan::EN,
    tasks: tasks::Tasks::EN,
    waiting: tasks::Waiting::EN,
    failure: tasks::Failures::EN,
    uploads: uploads::Uploads::EN,
    kinds: products::Kinds::EN,
    products: products::Products::EN,
    devices: devices::Devices::EN,
    register: devices::Register::EN,
    credentials: devices::Credentials::EN,
    batches: batches::Batches::EN,
    applications: applications::Applications::EN,
    account: access::Account::EN,
    operators: access::Operators::EN,
    tokens: access::Tokens::EN,
    audit: access::Audit::EN,
    nodes: access::Nodes::EN,
};

/// Puts values into the gaps of a text: `{count}` by `("count", &count)`.
pub(super) fn fill(text: &str, values: &[(&str, &dyn Display)]) -> String {
    let mut filled = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            rest = after;
            break;
        };
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
            filled.push_str(&value.to_string());
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_once() {
        let filled = fill("{a} of {b}", &[("a", &"{b}"), ("b", &7)]);
        assert_eq!(filled, "{b} of 7");
        assert_eq!(fill("no gap", &[]), "no gap");
    }
}
