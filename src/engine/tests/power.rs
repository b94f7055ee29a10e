//! The engine on the journal, and the power gone: at each moment a request leaves, what the medium holds must already say
//! why it may; and from whatever a cut leaves, the run ends as if nothing had happened.

use std::collections::BTreeMap;
use std::io;

use super::*;
use crate::store::index::MemoryIndex;
use crate::store::journal::{JournalOptions, JournalStore};
use crate::world::disk::{Cut, Disk, DiskFile, MemoryDisk};

const ROUTE: &str = r#"
steps:
  - name: ship
    call: { to: api, post: /ship, json: { id: "{{ payload.id }}" } }
    idempotency_key: "ship-{{ payload.order }}"
    save: { parcel: $.parcel }
  - name: mail
    call: { to: api, post: /mail, json: { id: "{{ payload.id }}", parcel: "{{ steps.ship.parcel }}" } }
"#;

/// Two events of each order: one of them makes the call, the other reads what it saved.
const ORDERS: usize = 6;

fn world() -> (World, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(Timestamp::from_second(START).unwrap()));
    let world = World {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        random: Arc::new(SeededRandom::from_seed(11)),
        spawn: Arc::new(TokioSpawn),
    };
    (world, clock)
}

fn open(disk: &MemoryDisk, world: &World) -> Arc<JournalStore> {
    open_on(Arc::new(disk.clone()), world)
}

fn open_on(disk: Arc<dyn Disk>, world: &World) -> Arc<JournalStore> {
    let options = JournalOptions { segment_bytes: 1 << 18, min_free_disk: 0, ..Default::default() };
    let index = Arc::new(MemoryIndex::default());
    Arc::new(JournalStore::open(disk, index, options, world.clone()).unwrap())
}

/// A disk whose syncs take a moment, as real ones do: whoever does not wait for them is seen.
struct SlowDisk(MemoryDisk);

struct SlowFile(Arc<dyn DiskFile>);

const SYNC: Duration = Duration::from_millis(2);

impl Disk for SlowDisk {
    fn place(&self) -> String {
        self.0.place()
    }
    fn prepare(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.0.prepare(name, bytes)
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SlowFile(self.0.open(name)?)))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.0.sync_folder()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
    fn total_bytes(&self) -> io::Result<u64> {
        self.0.total_bytes()
    }
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.0.lock()
    }
}

impl DiskFile for SlowFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        std::thread::sleep(SYNC);
        self.0.sync_data()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

/// One request, and how many operations the disk had seen when it left.
#[derive(Clone, Debug)]
struct Left {
    path: String,
    id: String,
    key: String,
    operations: usize,
}

/// Answers everything at once and notes the disk's state of that moment.
struct Witness {
    disk: MemoryDisk,
    left: Mutex<Vec<Left>>,
}

impl Transport for Witness {
    fn send(&self, request: WireRequest, _: Duration) -> BoxFuture<'_, Sent> {
        let body: Json = serde_json::from_slice(&request.body).unwrap();
        self.left.lock().unwrap().push(Left {
            path: request.url.path().to_owned(),
            id: body["id"].as_str().unwrap().to_owned(),
            key: request.headers["idempotency-key"].to_str().unwrap().to_owned(),
            operations: self.disk.operations(),
        });
        Box::pin(async {
            Sent::Answered(WireResponse {
                status: 201,
                headers: HeaderMap::new(),
                body: Bytes::from_static(br#"{"parcel":"p"}"#),
                truncated: false,
            })
        })
    }
}

/// Runs the engine on `store` until every one of `uids` has succeeded.
async fn run(
    disk: &MemoryDisk,
    store: &Arc<JournalStore>,
    (world, clock): (&World, &ManualClock),
    uids: &[Uid],
) -> Vec<Left> {
    let witness = Arc::new(Witness { disk: disk.clone(), left: Mutex::default() });
    let live = watch::Sender::new(live(ROUTE));
    let engine = Engine::start(Deps {
        world: world.clone(),
        store: Arc::clone(store) as Arc<dyn Store>,
        live: live.subscribe(),
        caller: Arc::new(Caller::new(Arc::clone(&witness) as Arc<dyn Transport>)),
        metrics: Arc::new(Metrics::new()),
    });
    for turn in 0.. {
        let mut open = 0;
        for uid in uids {
            let (status, due_at) = status(store, *uid).await;
            open += usize::from(status != Status::Succeeded);
            assert!(
                turn < TURNS_MAX && status != Status::Failed,
                "{uid} is {status}, due {due_at:?}"
            );
            // A call that the cut interrupted is repeated by the step's schedule.
            if due_at.is_some_and(|due_at| status == Status::Queued && due_at > clock.now()) {
                clock.advance(Duration::from_secs(1));
            }
        }
        if open == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    drop(engine);
    witness.left.lock().unwrap().clone()
}

async fn status(store: &JournalStore, uid: Uid) -> (Status, Option<Timestamp>) {
    let state = &store.event(uid).await.unwrap().unwrap().deliveries[0].state;
    (state.status, state.due_at)
}

/// Status and key of each step, as this store knows them.
async fn steps(store: &JournalStore, uid: Uid) -> BTreeMap<String, (StepStatus, Option<String>)> {
    let view = store.event(uid).await.unwrap().unwrap();
    let steps = view.deliveries[0].state.steps.iter();
    let key =
        |step: &crate::delivery::state::StepState| step.key.as_ref().map(|key| key.text.clone());
    steps.map(|step| (step.step.to_string(), (step.status, key(step)))).collect()
}

/// A run of all orders on a new disk: the disk, the events, the operations after which all were acknowledged, and what left.
async fn recorded() -> (MemoryDisk, BTreeMap<String, Uid>, usize, Vec<Left>) {
    let (disk, (world, clock)) = (MemoryDisk::new(), world());
    let store = open_on(Arc::new(SlowDisk(disk.clone())), &world);
    let live = live(ROUTE);
    let route = &live.set.routes[&"orders".into()];
    store.revision_put(route.revision.clone(), Arc::clone(&route.revision_text)).await.unwrap();
    let mut uids = BTreeMap::new();
    for number in 0..ORDERS * 2 {
        let id = format!("evt_{number}");
        let new = new_event(route, &world, &json!({ "id": id, "order": number / 2 }));
        uids.insert(id, new.envelope.uid);
        store.accept(vec![new]).await.unwrap();
    }
    let acknowledged = disk.operations();
    let all: Vec<Uid> = uids.values().copied().collect();
    let left = run(&disk, &store, (&world, &clock), &all).await;
    (disk, uids, acknowledged, left)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_leaves_before_the_medium_says_that_it_may() {
    let (disk, uids, _, left) = recorded().await;
    assert_eq!(left.iter().filter(|request| request.path == "/ship").count(), ORDERS);
    assert_eq!(left.iter().filter(|request| request.path == "/mail").count(), ORDERS * 2);
    for request in left {
        let store = open(&disk.cut_after(request.operations, Cut::Nothing), &world().0);
        let steps = steps(&store, uids[&request.id]).await;
        match request.path.as_str() {
            // The claim on an explicit key is durable before its call.
            "/ship" => assert_eq!(
                steps.get("ship"),
                Some(&(StepStatus::Running, Some(request.key.clone()))),
                "{request:?}"
            ),
            // What a step needs is durably done before its call.
            "/mail" => {
                let ship = steps["ship"].0;
                assert!(ship.satisfies_needs(), "{request:?}: ship is {ship:?} on the medium");
            }
            other => panic!("nothing calls {other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_whatever_a_cut_leaves_each_event_is_finished_and_nothing_recorded_runs_again() {
    let (disk, uids, acknowledged, before) = recorded().await;
    let all: Vec<Uid> = uids.values().copied().collect();
    for operations in acknowledged..=disk.operations() {
        for cut in [Cut::Nothing, Cut::Everything, Cut::Some(operations as u64)] {
            let (disk, (world, clock)) = (disk.cut_after(operations, cut), world());
            let store = open(&disk, &world);
            let mut recorded = BTreeMap::new();
            for (id, uid) in &uids {
                recorded.insert(id.clone(), steps(&store, *uid).await);
            }
            for request in run(&disk, &store, (&world, &clock), &all).await {
                let step = request.path.trim_start_matches('/');
                let known = recorded[&request.id].get(step);
                assert!(
                    known.is_none_or(|(status, _)| !status.is_settled()),
                    "{request:?} ran again after a cut at {operations} ({cut:?})"
                );
                // The key that the first life sent, if it had come so far.
                let first = before
                    .iter()
                    .find(|first| first.path == request.path && first.id == request.id);
                if let Some(first) = first.filter(|first| first.operations <= operations) {
                    assert_eq!(
                        first.key, request.key,
                        "another key after a cut at {operations} ({cut:?})"
                    );
                }
            }
        }
    }
}
