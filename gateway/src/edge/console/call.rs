//! How a request comes to its page: routes, and what handlers are given of the request.
//!
//! A router and its extractors are made anew for every type of handler, and each page has one of its own: that was most
//! of what the console added to the program. Here all that goes on around a handler is done once, for all of them: the
//! role is asked for, the form is read, and the parts that the handler takes are cut out at once, before it runs.

use std::{fmt, net::SocketAddr, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{
        ConnectInfo, DefaultBodyLimit, FromRequestParts as _, RawPathParams, Request, State,
    },
    handler::Handler,
    http::{HeaderMap, Uri, request::Parts},
    middleware::from_fn,
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, on},
};

use super::{
    Console,
    fault::Fault,
    form::Posted,
    session::{Visit, visit_of},
};
use crate::{edge::http::linger::linger, model::Role};

/// Pages, each at its address.
#[derive(Debug, Default)]
pub(super) struct Routes(Router<Arc<Console>>);

impl Routes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The page that is looked at there.
    pub(super) fn get<T>(self, path: &str, handler: impl Page<T>) -> Self {
        self.on(MethodFilter::GET, path, Erased::of(handler))
    }

    /// What is done with the form that is sent there.
    pub(super) fn post<T>(self, path: &str, handler: impl Page<T>) -> Self {
        self.on(MethodFilter::POST, path, Erased::of(handler))
    }

    /// With others.
    pub(super) fn merge(self, others: Self) -> Self {
        Self(self.0.merge(others.0))
    }

    /// Bodies of these may have so many bytes.
    pub(super) fn at_most(self, bytes: usize) -> Self {
        Self(self.0.layer(DefaultBodyLimit::max(bytes)))
    }

    /// What comes to these is limited by their handlers.
    pub(super) fn unlimited(self) -> Self {
        Self(self.0.layer(DefaultBodyLimit::disable()))
    }

    /// What comes to these is streamed, and limited by their handlers; the rest of a refused one is read, so that its
    /// sender hears why.
    pub(super) fn streamed(self) -> Self {
        Self(self.unlimited().0.layer(from_fn(linger)))
    }

    // Once, not at every route.
    #[inline(never)]
    fn on(self, method: MethodFilter, path: &str, page: Erased) -> Self {
        Self(self.0.route(path, on(method, page)))
    }

    /// All of them as a router.
    pub(super) fn done(self) -> Router<Arc<Console>> {
        self.0
    }
}

/// The answer to a request, when it comes.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<Response, Fault>> + Send>>;

/// A handler: an asynchronous function of [`Part`]s that gives a page or the reason why there is none.
pub(super) trait Page<T>: Copy + Send + Sync + 'static {
    /// The role that is needed; `None` where strangers may come.
    const ROLE: Option<Role>;
    /// Whether it takes the fields of a form.
    const TAKES_FORM: bool;

    /// Begins the answer.
    ///
    /// # Errors
    /// The fault of a request that has not what the handler takes.
    fn answer(self, call: &mut Call) -> Result<Answer, Fault>;
}

/// What a handler may take of a request.
pub(super) trait Part: Sized {
    /// The role that is needed for it.
    const ROLE: Option<Role> = None;
    /// Whether it is the fields of a form.
    const IS_FORM: bool = false;

    /// Takes it.
    ///
    /// # Errors
    /// The fault of a request that has none.
    fn of(call: &mut Call) -> Result<Self, Fault>;
}

/// A request on its way to its handler.
#[derive(Debug)]
pub(super) struct Call {
    console: Arc<Console>,
    parts: Parts,
    /// Until it is taken.
    body: Body,
    /// What stands in the address for its part in braces.
    named: Option<String>,
    /// Read already, where the handler takes one.
    form: Option<Posted>,
}

impl Call {
    /// What stands in the address for its part in braces; empty where it has none.
    pub(super) fn named(&self) -> &str {
        self.named.as_deref().unwrap_or_default()
    }

    /// Who sent it.
    ///
    /// # Errors
    /// The fault of a request of someone who has not the role.
    // Once, not in every page.
    #[inline(never)]
    pub(super) fn visit(&self, needed: Role) -> Result<Visit, Fault> {
        visit_of(&self.parts, needed)
    }

    /// Where it was sent to.
    pub(super) const fn uri(&self) -> &Uri {
        &self.parts.uri
    }
}

/// What cuts the parts out of a request and begins the answer.
type Begin = dyn Fn(&mut Call) -> Result<Answer, Fault> + Send + Sync;

/// A handler of any type.
#[derive(Clone)]
struct Erased {
    role: Option<Role>,
    takes_form: bool,
    answer: Arc<Begin>,
}

impl Erased {
    fn of<H: Page<T>, T>(handler: H) -> Self {
        Self {
            role: H::ROLE,
            takes_form: H::TAKES_FORM,
            answer: Arc::new(move |call| handler.answer(call)),
        }
    }

    async fn run(self, request: Request, console: Arc<Console>) -> Result<Response, Fault> {
        let (mut parts, mut body) = request.into_parts();
        let visit = self.role.map(|role| visit_of(&parts, role)).transpose()?;
        let named = RawPathParams::from_request_parts(&mut parts, &()).await;
        let named = named.map_err(|_| Fault::no_page())?;
        let named = named.iter().next().map(|(_, part)| part.to_owned());
        let mut form = None;
        if let (true, Some(visit)) = (self.takes_form, visit) {
            let request = Request::from_parts(parts.clone(), std::mem::take(&mut body));
            form = Some(Posted::of_session(request, &visit).await?);
        }
        let answer = (self.answer)(&mut Call {
            console,
            parts,
            body,
            named,
            form,
        })?;
        answer.await
    }
}

impl Handler<(), Arc<Console>> for Erased {
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, console: Arc<Console>) -> Self::Future {
        Box::pin(async move {
            match self.run(request, console).await {
                Ok(response) => response,
                Err(fault) => fault.into_response(),
            }
        })
    }
}

impl fmt::Debug for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Erased").finish_non_exhaustive()
    }
}

/// Makes handlers of functions of so many parts.
macro_rules! pages {
    ($(($($part:ident),*))+) => {$(
        impl<H, F, $($part),*> Page<($($part,)*)> for H
        where
            H: Fn($($part),*) -> F + Copy + Send + Sync + 'static,
            F: Future<Output = Result<Response, Fault>> + Send + 'static,
            $($part: Part,)*
        {
            const ROLE: Option<Role> = highest(&[$($part::ROLE),*]);
            const TAKES_FORM: bool = false $(|| $part::IS_FORM)*;

            fn answer(self, call: &mut Call) -> Result<Answer, Fault> {
                Ok(Box::pin(self($($part::of(call)?),*)))
            }
        }
    )+};
}

pages! { (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) }

/// The role that may do what each of `roles` may.
const fn highest(roles: &[Option<Role>]) -> Option<Role> {
    let (mut found, mut rest) = (None, roles);
    while let [role, others @ ..] = rest {
        found = match (found, *role) {
            (Some(one), Some(other)) if one as u8 >= other as u8 => Some(one),
            (one, None) => one,
            (_, other) => other,
        };
        rest = others;
    }
    found
}

impl Part for State<Arc<Console>> {
    fn of(call: &mut Call) -> Result<Self, Fault> {
        Ok(Self(Arc::clone(&call.console)))
    }
}

impl Part for Uri {
    fn of(call: &mut Call) -> Result<Self, Fault> {
        Ok(call.uri().clone())
    }
}

impl Part for HeaderMap {
    fn of(call: &mut Call) -> Result<Self, Fault> {
        Ok(call.parts.headers.clone())
    }
}

impl Part for ConnectInfo<SocketAddr> {
    fn of(call: &mut Call) -> Result<Self, Fault> {
        let peer = call.parts.extensions.get::<Self>().copied();
        peer.ok_or_else(|| Fault::internal(&"a request came from nowhere"))
    }
}

impl Part for Visit {
    const ROLE: Option<Role> = Some(Role::Viewer);

    fn of(call: &mut Call) -> Result<Self, Fault> {
        call.visit(Role::Viewer)
    }
}

impl Part for Posted {
    const ROLE: Option<Role> = Some(Role::Viewer);
    const IS_FORM: bool = true;

    fn of(call: &mut Call) -> Result<Self, Fault> {
        call.form.take().ok_or_else(Fault::forged)
    }
}

/// The request as it came, with its body.
impl Part for Request {
    fn of(call: &mut Call) -> Result<Self, Fault> {
        let body = std::mem::take(&mut call.body);
        Ok(Self::from_parts(call.parts.clone(), body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_role_is_asked_for() {
        let (viewer, operator) = (Some(Role::Viewer), Some(Role::Operator));
        for (roles, needed) in [
            (&[][..], None),
            (&[None, None], None),
            (&[None, viewer, None], viewer),
            (&[operator, None, viewer], operator),
            (&[viewer, operator, Some(Role::Admin)], Some(Role::Admin)),
        ] {
            assert_eq!(highest(roles), needed, "{roles:?}");
        }
    }
}
