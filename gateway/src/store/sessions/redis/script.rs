//! The scripts, and how they are called.

use std::sync::OnceLock;

use ::redis::{FromRedisValue, Script, ScriptInvocation, ToRedisArgs};

use super::RedisSessions;
use crate::store::StoreError;

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        /// Every script that there is.
        pub(super) struct Scripts {
            /// The one that is run without a lease.
            pub(super) join: Script,
            $(pub(super) $name: Script,)*
        }

        impl Scripts {
            /// Made once: their digests name them to the server.
            pub(super) fn get() -> &'static Self {
                static SCRIPTS: OnceLock<Scripts> = OnceLock::new();
                SCRIPTS.get_or_init(|| Self {
                    join: Script::new(include_str!("scripts/join.lua")),
                    $($name: Script::new(concat!(
                        include_str!("scripts/common.lua"),
                        include_str!(concat!("scripts/", stringify!($name), ".lua")),
                    )),)*
                })
            }
        }
    };
}

scripts! {
    adopt,
    beat,
    bury,
    change,
    claim,
    commit,
    cursors,
    discard,
    holders,
    mail_drop,
    mail_page,
    once,
    orphans,
    part,
    queue_drop,
    queue_expire,
    queue_page,
    reap,
    reclaim,
    retained,
    retained_expire,
    see_off,
    sessions_expired,
    sessions_recover,
    tell,
    wills,
}

/// A call in the making.
pub(super) struct Call<'s> {
    store: &'s RedisSessions,
    invocation: ScriptInvocation<'s>,
    arguments: usize,
}

impl RedisSessions {
    pub(super) fn call<'s>(&'s self, script: &'s Script) -> Call<'s> {
        let mut invocation = script.key(&self.tag);
        invocation.arg(self.number());
        Call {
            store: self,
            invocation,
            arguments: 0,
        }
    }
}

impl Call<'_> {
    pub(super) fn arg<T: ToRedisArgs>(&mut self, value: T) -> &mut Self {
        self.invocation.arg(value);
        self.arguments += 1;
        self
    }

    /// How many arguments were added.
    pub(super) fn arguments(&self) -> usize {
        self.arguments
    }

    /// Runs it; a server that does not know the script yet is given it.
    pub(super) async fn run<T: FromRedisValue>(&self) -> Result<T, StoreError> {
        let mut connection = self.store.connection.clone();
        let done = self.invocation.invoke_async(&mut connection).await;
        done.map_err(failure)
    }
}

fn failure(error: ::redis::RedisError) -> StoreError {
    match error.code() {
        Some("FENCED") => StoreError::Fenced,
        _ => error.into(),
    }
}
