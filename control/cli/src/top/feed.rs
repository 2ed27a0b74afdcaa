//! What the director tells, from a thread of its own; a connection that is lost is made again.

use super::Options;
use super::model::{Drain, News};
use crate::connect::{self, PATIENCE};
use proto::v1;
use proto::v1::connections_client::ConnectionsClient;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::transport::Channel;

/// News that wait to be shown.
const NEWS: usize = 64;
/// Drains that wait to be begun.
const DRAINS: usize = 16;
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_secs(1);

/// The other end of the thread.
pub(super) struct Feed {
    news: Receiver<News>,
    drains: mpsc::Sender<Drain>,
    refused: SyncSender<News>,
}

impl Feed {
    /// Begins.
    pub(super) fn start(options: &Options) -> io::Result<Feed> {
        let (told, news) = sync_channel(NEWS);
        let (drains, wanted) = mpsc::channel(DRAINS);
        let (options, refused) = (options.clone(), told.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("feed".to_owned())
            .spawn(move || runtime.block_on(follow(options, told, wanted)))?;
        Ok(Feed {
            news,
            drains,
            refused,
        })
    }

    /// What has come since.
    pub(super) fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Begins a drain.
    pub(super) fn drain(&self, drain: Drain) {
        if let Err(error) = self.drains.try_send(drain) {
            let drain = error.into_inner();
            // Whoever has as much news waiting has enough to read.
            let _ = self
                .refused
                .try_send(News::Drain(drain, Err("too many at once".to_owned())));
        }
    }
}

async fn follow(options: Options, told: SyncSender<News>, mut wanted: mpsc::Receiver<Drain>) {
    loop {
        let why = match connect::connect(&options.connect).await {
            Err(error) => error.to_string(),
            Ok(channel) => watch(&options, channel, &told, &mut wanted).await,
        };
        // News that find no room are replaced by the next.
        let _ = told.try_send(News::Lost(why));
        tokio::time::sleep(AGAIN).await;
        // What was asked for meanwhile was asked of nobody.
        while let Ok(drain) = wanted.try_recv() {
            let _ = told.try_send(News::Drain(drain, Err("no connection".to_owned())));
        }
    }
}

/// Tells what comes, until nothing comes any more; then why.
async fn watch(
    options: &Options,
    channel: Channel,
    told: &SyncSender<News>,
    wanted: &mut mpsc::Receiver<Drain>,
) -> String {
    let mut client = connect::director(channel.clone());
    let request = v1::WatchStatisticsRequest {
        interval_ms: options.interval,
    };
    let mut stream = match client.watch_statistics(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return status.message().to_owned(),
    };
    let patience = PATIENCE + Duration::from_millis(options.interval.into());
    loop {
        let message = tokio::select! {
            message = tokio::time::timeout(patience, stream.message()) => message,
            Some(drain) = wanted.recv() => {
                tokio::spawn(drain_one(channel.clone(), drain, told.clone()));
                continue;
            }
        };
        match message {
            Err(_) => return format!("nothing came for {} s", patience.as_secs()),
            Ok(Err(status)) => return status.message().to_owned(),
            Ok(Ok(None)) => return "the director stops".to_owned(),
            Ok(Ok(Some(message))) => {
                let _ = told.try_send(News::Statistics(Box::new(message)));
            }
        }
    }
}

async fn drain_one(channel: Channel, drain: Drain, told: SyncSender<News>) {
    let request = v1::DrainRequest {
        service: Some(drain.service.clone()),
        address: drain.address.clone(),
        port: drain.port,
        ..v1::DrainRequest::default()
    };
    let tell = |outcome: Result<v1::DrainResponse, tonic::Status>| {
        let outcome = outcome.map_err(|status| status.message().to_owned());
        let _ = told.try_send(News::Drain(drain.clone(), outcome));
    };
    let mut stream = match ConnectionsClient::new(channel).drain(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return tell(Err(status)),
    };
    loop {
        match stream.message().await {
            Ok(None) => return,
            Ok(Some(message)) => tell(Ok(message)),
            Err(status) => return tell(Err(status)),
        }
    }
}
