//! What is made of words of views; what they are good for is tested on real nodes.

use godwit_cluster::own::Layout;
use godwit_wire::command::UserCommand;
use godwit_wire::ids::UserId;
use uuid::Uuid;

use super::*;

fn request(view: View, command: Command) -> PeerRequest {
    PeerRequest {
        id: 0,
        view,
        key: Key::User(UserId(Uuid::nil())),
        command,
    }
}

fn word(view: View, confirmed: bool) -> PeerRequest {
    request(view, Command::Topic(TopicCommand::View { confirmed }))
}

async fn is_woken(holdings: &Holdings) -> bool {
    let woken = holdings.until_hinted();
    tokio::time::timeout(std::time::Duration::ZERO, woken)
        .await
        .is_ok()
}

#[tokio::test]
async fn words_of_views_end_here_and_wake_who_finds_out_and_what_is_asked_goes_on() {
    let holdings = Holdings::new(Layout::PRODUCT);
    let asked = || request(7, Command::User(UserCommand::Sessions));
    let mut requests = VecDeque::from([asked(), word(8, false), asked()]);
    hear_of_views(&holdings, &mut requests);
    assert_eq!((requests.len(), holdings.hinted()), (2, 8));
    assert!(is_woken(&holdings).await);
    hear_of_views(&holdings, &mut requests);
    assert_eq!(requests.len(), 2);
    assert!(!is_woken(&holdings).await, "nothing new");
    let mut requests = VecDeque::from([word(8, true)]);
    hear_of_views(&holdings, &mut requests);
    assert!(requests.is_empty() && is_woken(&holdings).await);
}
