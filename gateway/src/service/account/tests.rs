//! Operators and tokens against a real registry.

use zeroize::Zeroizing;

use super::*;
use crate::{
    model::{Actor, Millis, Role},
    store::registry::{OperatorPatch, sqlite_url},
};

struct Fixture {
    service: AccountService,
    authenticator: TokenAuthenticator,
    actor: Actor,
    _dir: tempfile::TempDir,
}

impl Fixture {
    /// With the first operator, `admin`.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(&sqlite_url(&dir.path().join("r.db")), 1)
            .await
            .unwrap();
        let authenticator = TokenAuthenticator::new(registry.clone(), 2);
        authenticator.bootstrap(|_| Ok(())).await.unwrap();
        Self {
            service: AccountService::new(registry, authenticator.clone()),
            authenticator,
            actor: Actor::new("ann".to_owned(), Role::Admin),
            _dir: dir,
        }
    }

    async fn operator(&self, name: &str, role: Role) -> CreatedOperator {
        let new = NewOperator {
            name: name.to_owned(),
            role,
            password: None,
        };
        self.service
            .create_operator(&self.actor, new)
            .await
            .unwrap()
    }

    async fn patch(&self, name: &str, patch: OperatorPatch) -> Result<Operator, AccountError> {
        self.service.patch_operator(&self.actor, name, &patch).await
    }
}

fn role(role: Role) -> OperatorPatch {
    OperatorPatch {
        role: Some(role),
        ..OperatorPatch::default()
    }
}

fn enabled(enabled: bool) -> OperatorPatch {
    OperatorPatch {
        enabled: Some(enabled),
        ..OperatorPatch::default()
    }
}

#[tokio::test]
async fn an_operator_comes_in_with_the_password_that_was_made_until_it_is_locked_out() {
    let fixture = Fixture::new().await;
    let made = fixture.operator("bob", Role::Operator).await;
    let password = made.password.expect("one was made");
    let enters = async || fixture.authenticator.operator("bob", &password).await;
    assert_eq!(enters().await.unwrap().1.role, Role::Operator);

    fixture.patch("bob", enabled(false)).await.unwrap();
    assert!(matches!(enters().await, Err(AuthError::Refused)));
    fixture.patch("bob", enabled(true)).await.unwrap();
    enters().await.unwrap();

    let given = Zeroizing::new("correct horse battery".to_owned());
    let service = &fixture.service;
    let shown = service
        .reset_password(&fixture.actor, "bob", Some(given.clone()))
        .await
        .unwrap();
    assert_eq!(shown, None, "what was given is not shown");
    assert!(matches!(enters().await, Err(AuthError::Refused)));
    fixture.authenticator.operator("bob", &given).await.unwrap();
    service
        .delete_operator(&fixture.actor, "bob")
        .await
        .unwrap();
    let gone = fixture.authenticator.operator("bob", &given).await;
    assert!(matches!(gone, Err(AuthError::Refused)));
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let fixture = Fixture::new().await;
    for patch in [role(Role::Viewer), enabled(false)] {
        let refused = fixture.patch("admin", patch).await;
        assert!(matches!(refused, Err(AccountError::InUse { .. })));
    }
    let refused = fixture
        .service
        .delete_operator(&fixture.actor, "admin")
        .await;
    assert!(matches!(refused, Err(AccountError::InUse { .. })));
    fixture.operator("second", Role::Admin).await;
    let changed = fixture.patch("admin", role(Role::Viewer)).await.unwrap();
    assert_eq!(changed.role, Role::Viewer);
    let refused = fixture.patch("second", enabled(false)).await;
    assert!(matches!(refused, Err(AccountError::InUse { .. })));
}

#[tokio::test]
async fn a_change_of_what_was_changed_meanwhile_is_refused() {
    let fixture = Fixture::new().await;
    let read = fixture.operator("bob", Role::Viewer).await.operator;
    let change = |revision| OperatorPatch {
        revision: Some(revision),
        ..role(Role::Operator)
    };
    let first = fixture.patch("bob", change(read.updated_at)).await.unwrap();
    assert!(first.updated_at > read.updated_at);
    let second = fixture.patch("bob", change(read.updated_at)).await;
    assert!(matches!(second, Err(AccountError::Stale { .. })));
    fixture
        .patch("bob", change(first.updated_at))
        .await
        .unwrap();
}

#[tokio::test]
async fn names_and_passwords_have_rules() {
    let fixture = Fixture::new().await;
    let create = async |name: &str, password: Option<&str>| {
        let new = NewOperator {
            name: name.to_owned(),
            role: Role::Viewer,
            password: password.map(|text| Zeroizing::new(text.to_owned())),
        };
        fixture.service.create_operator(&fixture.actor, new).await
    };
    for name in ["", "a b", "ä", "..", "a/b", &"x".repeat(65)] {
        let refused = create(name, None).await;
        assert!(matches!(refused, Err(AccountError::Invalid(_))), "{name}");
    }
    for password in ["", "elevenchars", &"x".repeat(1_025)] {
        let refused = create("bob", Some(password)).await;
        assert!(matches!(refused, Err(AccountError::Invalid(_))));
    }
    let refused = create("admin", None).await;
    assert!(matches!(refused, Err(AccountError::Conflict { .. })));
    create("b.o-b_2@x", Some("twelve chars")).await.unwrap();
}

#[tokio::test]
async fn a_token_works_until_it_is_revoked_or_ends() {
    let fixture = Fixture::new().await;
    let create = async |expires_at| {
        let new = NewToken {
            name: "ci".to_owned(),
            role: Role::Operator,
            expires_at,
        };
        fixture.service.create_token(&fixture.actor, new).await
    };
    let made = create(None).await.unwrap();
    let actor = fixture.authenticator.token(&made.secret).await.unwrap();
    assert_eq!((actor.name.as_str(), actor.role), ("ci", Role::Operator));
    let service = &fixture.service;
    service
        .revoke_token(&fixture.actor, made.token.id)
        .await
        .unwrap();
    let revoked = fixture.authenticator.token(&made.secret).await;
    assert!(matches!(revoked, Err(AuthError::Refused)));

    let past = create(Some(Millis::now())).await;
    assert!(matches!(past, Err(AccountError::Invalid(_))));
    let short = Millis::now().after(std::time::Duration::from_millis(300));
    let short = create(Some(short)).await.unwrap();
    let ended = async {
        while fixture.authenticator.token(&short.secret).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(10);
    let ended = tokio::time::timeout(patience, ended).await;
    ended.expect("a token that has ended lets nobody in");
}

#[tokio::test]
async fn the_audit_is_narrowed_by_who_what_and_when() {
    let fixture = Fixture::new().await;
    // Its own first entries are of a millisecond before.
    let made = Millis::now();
    let before = loop {
        let now = Millis::now();
        if now > made {
            break now;
        }
        tokio::task::yield_now().await;
    };
    fixture.operator("bob", Role::Viewer).await;
    fixture.patch("bob", role(Role::Operator)).await.unwrap();
    let found = async |filter: AuditFilter| {
        let page = fixture.service.audit(&filter, &Page::default()).await;
        let actions = page.unwrap().items.into_iter().map(|entry| entry.action);
        actions.collect::<Vec<_>>()
    };
    let by = |actor: &str| AuditFilter {
        actor: Some(actor.to_owned()),
        ..AuditFilter::default()
    };
    assert_eq!(
        found(by("ann")).await,
        ["operator.update", "operator.create"]
    );
    assert_eq!(found(by("nobody")).await, [""; 0]);
    let action = |action: &str| AuditFilter {
        action: Some(action.to_owned()),
        since: Some(before),
        ..AuditFilter::default()
    };
    assert_eq!(found(action("operator.create")).await, ["operator.create"]);
    assert_eq!(found(action("operator")).await.len(), 2);
    assert_eq!(found(action("operat")).await, [""; 0]);
    let early = AuditFilter {
        until: Some(before),
        subject: Some("bob".to_owned()),
        ..AuditFilter::default()
    };
    assert_eq!(found(early).await, [""; 0]);
}
