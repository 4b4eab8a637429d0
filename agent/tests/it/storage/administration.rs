//! Policies, aliases, settings, the audit log and tokens.

use remora_agent::storage::{AuditFilter, Denied, JournalFilter, Keep, Paging, Role, Storage, Verdict};
use serde_json::json;

use super::{Place, everywhere, who};

fn newest(limit: u32) -> Paging {
    Paging { limit, newest_first: true, ..Paging::default() }
}

/// What was done, oldest first.
async fn actions(storage: &Storage) -> Vec<(String, String, bool)> {
    let log = storage.audit_log(AuditFilter::default(), &Paging::default()).await.unwrap();
    log.items.into_iter().map(|entry| (entry.action, entry.subject, entry.allowed)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_kept_by_content() {
    everywhere(async |place| {
        let storage = place.open().await;
        let first = storage.upload_policy("first", b"weights".into(), "a note", &who(5)).await.unwrap();
        assert_eq!(first.id, "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c");
        let again = storage.upload_policy("again", b"weights".into(), "", &who(6)).await.unwrap();
        assert_eq!(again, first, "what is there stays as it is");
        let other = storage.upload_policy("other", b"".into(), "", &who(7)).await.unwrap();
        assert_eq!(storage.policies().await.unwrap(), [other, first.clone()]);
        assert_eq!(storage.policy_bytes(&first.id).await.unwrap(), b"weights");
        assert_eq!(storage.policy("nobody").await.unwrap(), None);
        let unknown = storage.policy_bytes("../lock").await.unwrap_err().to_string();
        assert_eq!(unknown, "no policy has the id \"../lock\"");
        assert_eq!(actions(&storage).await.len(), 2);

        place.damage(&first.id).await;
        let damaged = storage.policy_bytes(&first.id).await.unwrap_err().to_string();
        assert!(damaged.contains("does not hold what its name says"), "{damaged}");
        storage.upload_policy("first", b"weights".into(), "", &who(8)).await.unwrap();
        assert_eq!(storage.policy_bytes(&first.id).await.unwrap(), b"weights");
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_remember_who_decided_when() {
    everywhere(async |place| {
        let storage = place.open().await;
        assert_eq!(storage.alias("champion").await.unwrap(), None);
        storage.set_alias("champion", Some("greedy-completion"), "to begin with", &who(10)).await.unwrap();
        storage.set_alias("shadow", Some("skippy"), "curious", &who(15)).await.unwrap();
        let change = storage.set_alias("champion", Some("9c57"), "it won", &who(20)).await.unwrap();
        storage.set_alias("shadow", None, "seen enough", &who(30)).await.unwrap();
        for (at_ms, policy) in
            [(9, None), (10, Some("greedy-completion")), (19, Some("greedy-completion")), (20, Some("9c57"))]
        {
            assert_eq!(storage.alias_at("champion", at_ms).await.unwrap().as_deref(), policy, "at {at_ms}");
        }
        assert_eq!(storage.alias("shadow").await.unwrap(), None);
        assert_eq!(storage.aliases().await.unwrap(), std::slice::from_ref(&change));
        let page = storage.alias_history("champion", &newest(1)).await.unwrap();
        assert_eq!(page.items, [change]);
        let page = storage
            .alias_history("champion", &Paging { token: page.next.unwrap(), ..newest(1) })
            .await
            .unwrap();
        assert_eq!((page.items[0].reason.as_str(), page.next), ("to begin with", None));
        let set = |alias: &str| ("alias.set".to_owned(), alias.to_owned(), true);
        assert_eq!(actions(&storage).await, ["champion", "shadow", "champion", "shadow"].map(set));
        let zero = storage.set_alias("cham\0pion", None, "", &who(40)).await.unwrap_err();
        assert_eq!(zero.to_string(), "alias: has a zero byte, which no name or text may have");
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_hold_until_they_change() {
    everywhere(async |place| {
        let storage = place.open().await;
        storage.set_setting(("", "alpha"), Some(&json!(0.5)), "a start", &who(1)).await.unwrap();
        storage.set_setting(("hall", "alpha"), Some(&json!(0.25)), "thin links", &who(2)).await.unwrap();
        storage.set_setting(("hall", "autonomy"), Some(&json!({ "share": 0.1 })), "", &who(3)).await.unwrap();
        storage.set_setting(("hall", "alpha"), Some(&json!(null)), "null is a value", &who(4)).await.unwrap();
        storage.close().await;
        let storage = place.open().await;
        assert_eq!(storage.setting("", "alpha").await.unwrap(), Some(json!(0.5)));
        assert_eq!(storage.setting("hall", "alpha").await.unwrap(), Some(json!(null)));
        assert_eq!(storage.setting("yard", "alpha").await.unwrap(), None);
        storage.set_setting(("hall", "alpha"), None, "back to the default", &who(5)).await.unwrap();
        assert_eq!(storage.setting("hall", "alpha").await.unwrap(), None);
        let keys: Vec<_> = storage
            .settings()
            .await
            .unwrap()
            .into_iter()
            .map(|setting| (setting.scope, setting.key))
            .collect();
        assert_eq!(keys, [("".to_owned(), "alpha".to_owned()), ("hall".to_owned(), "autonomy".to_owned())]);
        let history = storage.setting_history("hall", "alpha", &newest(2)).await.unwrap();
        assert_eq!(history.items.len(), 2);
        assert!(history.next.is_some());
        assert_eq!(actions(&storage).await.len(), 5);
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_shows_that_it_was_changed() {
    everywhere(async |place| {
        let storage = place.open().await;
        let Verdict::Intact(empty) = storage.verify_audit_log().await.unwrap() else { panic!("it is empty") };
        assert_eq!(empty.sequence, 0);
        for number in 1..=2100 {
            let details = json!({ "number": number, "text": "\0 is fine in JSON" });
            storage.audit(&who(number), "cluster.remove", "hall", &details, number % 2 == 0).await.unwrap();
        }
        let Verdict::Intact(head) = storage.verify_audit_log().await.unwrap() else { panic!("it is intact") };
        assert_eq!((head.sequence, head.hash.len()), (2100, 32));
        let filter = AuditFilter { from_ms: Some(2099), ..AuditFilter::default() };
        let page = storage.audit_log(filter, &newest(10)).await.unwrap();
        assert_eq!(page.items.iter().map(|entry| entry.allowed).collect::<Vec<_>>(), [true, false]);
        assert_eq!(page.items[0].details["text"], "\0 is fine in JSON");
        assert_eq!(page.items[0].who, who(2100));

        // From the end on, each finds something before what was broken already.
        let changed = "its contents do not fit its hash";
        let cases = [
            ("UPDATE audit SET allowed = 1 WHERE sequence = 2001", 2001, changed),
            ("DELETE FROM audit WHERE sequence BETWEEN 500 AND 1999", 500, "it is missing"),
            ("UPDATE audit SET actor = 'eve' WHERE sequence = 300", 300, changed),
            ("UPDATE audit SET at_ms = at_ms + 1 WHERE sequence = 200", 200, changed),
            ("UPDATE audit SET role = NULL WHERE sequence = 150", 150, changed),
            ("UPDATE audit SET details = '{}' WHERE sequence = 100", 100, changed),
            // The same letters, otherwise cut up.
            ("UPDATE audit SET action = 'cluster.removeh', subject = 'all' WHERE sequence = 50", 50, changed),
            (
                "UPDATE audit SET hash = (SELECT hash FROM audit WHERE sequence = 39) WHERE sequence = 40",
                40,
                changed,
            ),
            ("DELETE FROM audit WHERE sequence = 1", 1, "it is missing"),
        ];
        for (tampering, sequence, why) in cases {
            place.tamper(tampering).await;
            assert_eq!(
                storage.verify_audit_log().await.unwrap(),
                Verdict::Broken { sequence, why },
                "{tampering}"
            );
        }
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_hold_until_they_expire_or_are_revoked() {
    everywhere(async |place| {
        let storage = place.open().await;
        let lasting = storage.create_token("ci", Role::Orchestrator, None, &who(10)).await.unwrap();
        let brief = storage.create_token("guest", Role::Viewer, Some(100), &who(20)).await.unwrap();
        assert!(!format!("{lasting:?}").contains(&lasting.secret));
        assert_eq!(lasting.secret.len(), "rmr_".len() + 16 + 1 + 64);
        assert_eq!(storage.authenticate(&lasting.secret, i64::MAX).unwrap().role, Role::Orchestrator);
        assert_eq!(storage.authenticate(&brief.secret, 99).unwrap(), brief.token);
        assert_eq!(storage.authenticate(&brief.secret, 100), Err(Denied::Expired));
        let past = storage.create_token("late", Role::Viewer, Some(30), &who(30)).await.unwrap_err();
        assert_eq!(past.to_string(), "expires_at_ms: lies in the past; want a later time");

        let mut guessed = lasting.secret.clone();
        let last = if guessed.pop() == Some('0') { '1' } else { '0' };
        guessed.push(last);
        let id = &lasting.token.id;
        let wrong = [
            (guessed, Denied::Unknown),
            (format!("rmr_{id}_"), Denied::Unknown),
            ("rmr_0000000000000000_".to_owned(), Denied::Unknown),
            (format!("rmr_{id}"), Denied::Malformed),
            (lasting.secret.to_uppercase(), Denied::Malformed),
            (String::new(), Denied::Malformed),
        ];
        for (shown, denied) in wrong {
            assert_eq!(storage.authenticate(&shown, 50), Err(denied), "{shown}");
        }

        let revoked = storage.revoke_token(id, &who(60)).await.unwrap();
        assert_eq!(revoked.revoked_at_ms, Some(60));
        assert_eq!(storage.authenticate(&lasting.secret, 50), Err(Denied::Revoked));
        assert_eq!(storage.revoke_token(id, &who(70)).await.unwrap(), revoked, "it stays as it is");
        let unknown = storage.revoke_token("nobody", &who(70)).await.unwrap_err();
        assert_eq!(unknown.to_string(), "no token has the id \"nobody\"");
        storage.close().await;

        let storage = place.open().await;
        assert_eq!(storage.authenticate(&lasting.secret, 50), Err(Denied::Revoked));
        assert_eq!(storage.authenticate(&brief.secret, 50), Ok(brief.token.clone()));
        assert_eq!(storage.tokens(), [revoked, brief.token.clone()]);
        let done: Vec<_> =
            actions(&storage).await.into_iter().map(|(action, subject, _)| (action, subject)).collect();
        let expected = [("token.create", id), ("token.create", &brief.token.id), ("token.revoke", id)];
        assert_eq!(done, expected.map(|(action, subject)| (action.to_owned(), subject.clone())));
        storage.close().await;
    })
    .await;
}

/// A service answers on whatever thread is free, which a compiler can check.
#[tokio::test]
async fn everything_can_be_awaited_anywhere() {
    fn anywhere(_: impl Send) {}
    let place = Place::sqlite();
    let storage = place.open().await;
    let (ada, first) = (who(1), Paging::default());
    anywhere(storage.upload_policy("", Vec::new(), "", &ada));
    anywhere(storage.policy_bytes(""));
    anywhere(storage.set_alias("", None, "", &ada));
    anywhere(storage.aliases());
    anywhere(storage.set_setting(("", ""), None, "", &ada));
    anywhere(storage.audit_log(AuditFilter::default(), &first));
    anywhere(storage.verify_audit_log());
    anywhere(storage.revoke_token("", &ada));
    anywhere(storage.journal(JournalFilter::default(), &first));
    anywhere(storage.export("").next());
    anywhere(storage.compact(Keep::Forever, 0));
    anywhere(storage.restore());
    anywhere(storage.recorder().flush());
    anywhere(storage.close());
}
