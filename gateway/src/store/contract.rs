//! One contract for every backend of a store: each case runs by itself on what is embedded, and all of them on one server.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, future::LocalBoxFuture, stream};
use tokio::task::LocalKey;

/// Cases that run at once on the server.
const AT_ONCE: usize = 8;

/// A case, and its name.
pub(super) type Case = (&'static str, LocalBoxFuture<'static, ()>);

/// Runs all cases on `server`, which they find under `key`; gives the names of those that fail.
pub(super) async fn failures<T: 'static>(
    key: &'static LocalKey<Arc<T>>,
    server: T,
    cases: Vec<Case>,
) -> Vec<&'static str> {
    let server = Arc::new(server);
    stream::iter(cases)
        .map(|(name, case)| {
            let case = key.scope(Arc::clone(&server), case);
            let outcome = AssertUnwindSafe(case).catch_unwind();
            outcome.map(move |outcome| outcome.is_err().then_some(name))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await
}

/// Makes a test of each case, on what is embedded, and `cases` of all of them.
macro_rules! contract {
    ($($module:ident { $($case:ident,)* })*) => {
        mod on_sqlite {
            $(mod $module {
                $(#[tokio::test]
                async fn $case() {
                    super::super::$module::$case().await;
                })*
            })*
        }

        fn cases() -> Vec<crate::store::contract::Case> {
            vec![$($((
                concat!(stringify!($module), "::", stringify!($case)),
                Box::pin($module::$case()) as _,
            ),)*)*]
        }
    };
}
pub(super) use contract;
