//! Reading the journal: by decision, page by page, as a whole.

use remora_agent::storage::{JournalFilter, Kind, Paging, Recorded, Storage};

use super::{about, entry, everywhere, fill};

fn sequences(entries: &[Recorded]) -> Vec<i64> {
    entries.iter().map(|recorded| recorded.sequence).collect()
}

async fn all_pages(storage: &Storage, filter: JournalFilter, limit: u32, newest_first: bool) -> Vec<i64> {
    let mut paging = Paging { limit, newest_first, ..Paging::default() };
    let mut found = Vec::new();
    loop {
        let page = storage.journal(filter.clone(), &paging).await.unwrap();
        assert!(page.items.len() == limit as usize || page.next.is_none());
        found.extend(sequences(&page.items));
        match page.next {
            Some(token) => paging.token = token,
            None => return found,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_filtered_and_whole() {
    everywhere(async |place| {
        let storage = place.open().await;
        let recorder = storage.recorder();
        fill(&recorder, 10).await;
        // A clock that went back.
        for at_ms in [20, 5, 6, 30] {
            recorder.record(entry("yard", Kind::Changed, at_ms, "")).unwrap();
        }
        recorder.flush().await.unwrap();
        let all = JournalFilter::default();
        let yard = JournalFilter { cluster: Some("yard".to_owned()), ..all.clone() };
        let registered = JournalFilter { kind: Some(Kind::Registered), ..all.clone() };
        let while_5_to_9 = JournalFilter { from_ms: Some(5), until_ms: Some(10), ..all.clone() };
        let yard_later = JournalFilter { from_ms: Some(6), ..yard.clone() };
        let never = JournalFilter { from_ms: Some(1000), ..all.clone() };
        let cases = [
            (all, (1..=15).collect::<Vec<_>>()),
            (yard, vec![12, 13, 14, 15]),
            (registered, vec![1]),
            (while_5_to_9, vec![6, 7, 8, 9, 10, 13, 14]),
            (yard_later, vec![12, 14, 15]),
            (never, vec![]),
        ];
        for (filter, expected) in cases {
            for limit in [1, 3, 4, 100] {
                assert_eq!(all_pages(&storage, filter.clone(), limit, false).await, expected, "{filter:?}");
                let mut backwards = all_pages(&storage, filter.clone(), limit, true).await;
                backwards.reverse();
                assert_eq!(backwards, expected, "{filter:?} backwards");
            }
        }
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_fit_their_own_query_only() {
    everywhere(async |place| {
        let storage = place.open().await;
        fill(&storage.recorder(), 10).await;
        let all = JournalFilter::default();
        let hall = JournalFilter { cluster: Some("hall".to_owned()), ..JournalFilter::default() };
        let first = storage.journal(all.clone(), &Paging { limit: 2, ..Paging::default() }).await.unwrap();
        let token = first.next.unwrap();
        let wrong = [
            (hall.clone(), Paging { token: token.clone(), ..Paging::default() }),
            (all.clone(), Paging { token: token.clone(), newest_first: true, ..Paging::default() }),
            (all.clone(), Paging { token: format!("{token}0"), ..Paging::default() }),
            (all.clone(), Paging { token: "ä".repeat(12), ..Paging::default() }),
        ];
        for (filter, paging) in wrong {
            let refused = storage.journal(filter, &paging).await.unwrap_err().to_string();
            assert!(refused.starts_with("page token: "), "{refused}");
        }
        let many = storage.journal(all, &Paging { limit: 1001, ..Paging::default() }).await.unwrap_err();
        assert_eq!(many.to_string(), "limit: 1001 rows; want 1 to 1000");
        let zero = JournalFilter { cluster: Some("a\0b".to_owned()), ..JournalFilter::default() };
        let zero = storage.journal(zero, &Paging::default()).await.unwrap_err().to_string();
        assert!(zero.contains("zero byte"), "{zero}");
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_has_its_entries() {
    everywhere(async |place| {
        let storage = place.open().await;
        let recorder = storage.recorder();
        for (decision, kind) in
            [("a", Kind::Decided), ("b", Kind::Decided), ("a", Kind::Changed), ("a", Kind::Ended)]
        {
            recorder.record(about(decision, kind, 7)).unwrap();
        }
        recorder.flush().await.unwrap();
        let entries = storage.decision("a").await.unwrap();
        assert_eq!(sequences(&entries), [1, 3, 4]);
        assert_eq!(entries[2].entry, about("a", Kind::Ended, 7));
        assert_eq!(storage.decision("c").await.unwrap(), []);
        storage.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_whole_and_goes_on_with_what_comes() {
    everywhere(async |place| {
        let storage = place.open().await;
        let recorder = storage.recorder();
        fill(&recorder, 2500).await;
        recorder.commit(entry("yard", Kind::Changed, 0, "")).await.unwrap();
        let mut export = storage.export("hall");
        let mut found = Vec::new();
        while let Some(recorded) = export.next().await.unwrap() {
            if found.is_empty() {
                recorder.commit(entry("hall", Kind::Removed, 0, "")).await.unwrap();
            }
            found.push(recorded.sequence);
        }
        assert_eq!(found, (1..=2501).chain([2503]).collect::<Vec<_>>());
        storage.close().await;
    })
    .await;
}
