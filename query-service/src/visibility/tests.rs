use uuid::Uuid;

use super::*;

const PRIVATE: Facts = facts(Visibility::Private);
const PUBLIC: Facts = facts(Visibility::Public);

const fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

const fn facts(visibility: Visibility) -> Facts {
    Facts {
        community: Some(CommunityId(id(1))),
        visibility: Some(visibility),
        role: None,
        banned: false,
        invited: false,
        category: Some(CategoryId(id(2))),
        thread: Some(ThreadId(id(3))),
        thread_deleted: None,
        thread_author: Some(ADA),
        post_author: Some(ADA),
        post_hidden: false,
        account: Some(ADA),
        private: Vec::new(),
        invitations: Vec::new(),
        until: None,
    }
}

const ADA: AccountId = AccountId(id(7));
const GUEST: Reader = Reader { account: None, operator: false };
const MEMBER: Reader = Reader { account: Some(ADA), operator: false };
const OPERATOR: Reader = Reader { account: Some(AccountId(id(8))), operator: true };

fn who(admitted: Result<Admitted, Refusal>) -> Result<Who, Refusal> {
    admitted.map(|admitted| admitted.audience.0)
}

#[test]
fn a_public_community_is_everybodys() {
    for facts in [PUBLIC, facts(Visibility::Restricted), Facts { banned: true, ..PUBLIC }] {
        assert_eq!(who(GUEST.in_community(&facts)), Ok(Who::Readers));
        assert_eq!(who(MEMBER.in_community(&facts)), Ok(Who::Readers));
    }
}

#[test]
fn a_private_community_is_its_members_and_the_operators() {
    let not_found = Err(Refusal::CommunityNotFound);
    assert_eq!(who(GUEST.in_community(&PRIVATE)), not_found);
    assert_eq!(who(MEMBER.in_community(&PRIVATE)), not_found);
    assert_eq!(who(OPERATOR.in_community(&PRIVATE)), Ok(Who::Moderators));
    let member = Facts { role: Some(Role::Member), ..PRIVATE };
    assert_eq!(who(MEMBER.in_community(&member)), Ok(Who::Readers));
    assert_eq!(who(MEMBER.in_community(&Facts { banned: true, ..member })), not_found);
    assert_eq!(who(MEMBER.in_community(&Facts { role: Some(Role::Owner), ..PRIVATE })), Ok(Who::Moderators));
}

#[test]
fn a_community_that_says_what_we_do_not_know_is_nobodys() {
    let unknown = Facts { visibility: None, role: Some(Role::Admin), ..PUBLIC };
    assert_eq!(who(MEMBER.in_community(&unknown)), Err(Refusal::CommunityNotFound));
}

#[test]
fn moderators_and_above_share_an_audience_until_they_are_banned() {
    for role in [Role::Moderator, Role::Admin, Role::Owner] {
        let facts = Facts { role: Some(role), ..PUBLIC };
        assert_eq!(who(MEMBER.in_community(&facts)), Ok(Who::Moderators));
        assert_eq!(who(MEMBER.in_community(&Facts { banned: true, ..facts })), Ok(Who::Readers));
    }
}

#[test]
fn the_moderators_room_tells_others_apart() {
    assert_eq!(who(GUEST.in_moderation(&PUBLIC)), Err(Refusal::LogIn));
    assert_eq!(who(MEMBER.in_moderation(&PUBLIC)), Err(Refusal::ModeratorsOnly));
    assert_eq!(who(GUEST.in_moderation(&PRIVATE)), Err(Refusal::CommunityNotFound));
    let moderator = Facts { role: Some(Role::Moderator), ..PRIVATE };
    assert_eq!(who(MEMBER.in_moderation(&moderator)), Ok(Who::Moderators));
    assert_eq!(who(OPERATOR.in_moderation(&PUBLIC)), Ok(Who::Moderators));
}

#[test]
fn what_is_in_a_private_community_is_not_found_by_its_own_name() {
    assert_eq!(GUEST.in_category(&PRIVATE).err(), Some(Refusal::CategoryNotFound));
    assert_eq!(GUEST.in_thread(&PRIVATE).err(), Some(Refusal::ThreadNotFound));
    assert_eq!(GUEST.below_post(&PRIVATE).err(), Some(Refusal::PostNotFound));
    assert_eq!(MEMBER.at_post(&PRIVATE).err(), Some(Refusal::PostNotFound), "though it is its own post");
}

#[test]
fn a_deleted_thread_is_its_moderators() {
    let deleted = Facts { thread_deleted: Some(DeletedBy::Moderator), ..PUBLIC };
    assert_eq!(MEMBER.in_thread(&deleted).err(), Some(Refusal::ThreadNotFound), "a moderator deleted the author's");
    assert_eq!(MEMBER.at_post(&deleted).err(), Some(Refusal::PostNotFound));
    let moderator = Facts { role: Some(Role::Moderator), ..deleted.clone() };
    assert!(MEMBER.in_thread(&moderator).is_ok());
    assert!(OPERATOR.at_post(&deleted).is_ok());
}

#[test]
fn who_may_restore_a_thread_reads_it() {
    let withdrawn = Facts { thread_deleted: Some(DeletedBy::Author), ..PUBLIC };
    assert!(MEMBER.in_thread(&withdrawn).is_ok() && MEMBER.at_post(&withdrawn).is_ok());
    for (reader, facts) in [
        (GUEST, withdrawn.clone()),
        (GUEST, Facts { thread_author: None, ..withdrawn.clone() }),
        (MEMBER, Facts { thread_author: None, ..withdrawn.clone() }),
        (MEMBER, Facts { thread_author: Some(AccountId(id(9))), ..withdrawn.clone() }),
        (MEMBER, Facts { banned: true, ..withdrawn.clone() }),
        (MEMBER, Facts { visibility: Some(Visibility::Private), ..withdrawn }),
    ] {
        assert_eq!(reader.in_thread(&facts).err(), Some(Refusal::ThreadNotFound), "{facts:?}");
    }
}

#[test]
fn who_is_invited_sees_the_community_itself_and_its_own_invitation() {
    let invited = Facts { invited: true, ..PRIVATE };
    assert_eq!(who(MEMBER.at_community(&invited)), Ok(Who::Readers));
    assert_eq!(who(MEMBER.at_member(&invited, ADA)), Ok(Who::Oneself(ADA)));
    assert_eq!(who(MEMBER.at_member(&invited, AccountId(id(9)))), Err(Refusal::CommunityNotFound));
    assert_eq!(who(MEMBER.in_community(&invited)), Err(Refusal::CommunityNotFound), "nothing of what is in it");
    for facts in [PRIVATE, Facts { banned: true, ..invited.clone() }, Facts { visibility: None, ..invited }] {
        assert_eq!(who(MEMBER.at_community(&facts)), Err(Refusal::CommunityNotFound));
        assert_eq!(who(MEMBER.at_member(&facts, ADA)), Err(Refusal::CommunityNotFound));
    }
}

#[test]
fn a_hidden_post_by_itself_shows_its_text_to_its_author() {
    let hidden = Facts { post_hidden: true, ..PUBLIC };
    let at = |reader: Reader, facts: &Facts| reader.at_post(facts).map(|(_, admitted)| admitted.audience.0);
    assert_eq!(at(MEMBER, &hidden), Ok(Who::Oneself(ADA)));
    assert_eq!(at(GUEST, &hidden), Ok(Who::Readers));
    assert_eq!(at(MEMBER, &Facts { post_author: None, ..hidden.clone() }), Ok(Who::Readers));
    assert_eq!(at(MEMBER, &Facts { role: Some(Role::Admin), ..hidden.clone() }), Ok(Who::Moderators));
    let below = MEMBER.below_post(&hidden).map(|(_, admitted)| admitted.audience.0);
    assert_eq!(below, Ok(Who::Readers), "its replies are shown as to everybody");
}

#[test]
fn what_is_about_oneself_shows_more_to_oneself_only() {
    let about = |reader: Reader, facts: &Facts| who(reader.at_member(facts, ADA));
    assert_eq!(about(MEMBER, &PUBLIC), Ok(Who::Oneself(ADA)));
    assert_eq!(about(GUEST, &PUBLIC), Ok(Who::Readers));
    assert_eq!(about(Reader { account: Some(AccountId(id(9))), ..MEMBER }, &PUBLIC), Ok(Who::Readers));
    assert_eq!(about(OPERATOR, &PUBLIC), Ok(Who::Moderators));
}

#[test]
fn the_horizon_holds_the_private_communities_that_the_reader_is_in() {
    let [mine, other] = [id(1), id(5)];
    let facts = Facts { private: vec![mine], ..Facts::default() };
    let horizon = MEMBER.horizon(&facts);
    assert!(horizon.holds(CommunityId(mine)) && !horizon.holds(CommunityId(other)));
    assert_ne!(horizon, GUEST.horizon(&Facts::default()), "they share no answer");
    assert!(OPERATOR.horizon(&Facts::default()).holds(CommunityId(other)));
}

#[test]
fn invitations_and_what_they_are_to_show_to_the_invited_account_only() {
    let [mine, invited] = [id(5), id(1)];
    let facts = Facts { private: vec![mine], invitations: vec![invited], ..PUBLIC };
    let seen = |reader: Reader| reader.belonging_of(&facts).expect("the account is there").1;
    let own = seen(MEMBER);
    assert_eq!(own.invitations(), [invited]);
    assert_eq!(own.horizon().private(), [invited, mine], "in order, to be searched");
    assert!(!MEMBER.horizon(&facts).holds(CommunityId(invited)), "nothing of what is in it");
    let stranger = Reader { account: Some(AccountId(id(9))), ..MEMBER };
    for (reader, refusal) in
        [(GUEST, Refusal::LogIn), (stranger, Refusal::NotYourself), (OPERATOR, Refusal::NotYourself)]
    {
        let belonging = seen(reader);
        assert!(belonging.invitations().is_empty() && belonging.horizon() == &reader.horizon(&facts));
        assert_ne!(belonging, own, "they share no answer");
        assert_eq!(reader.invitations_of(ADA), Err(refusal));
    }
    assert_eq!(MEMBER.invitations_of(ADA), Ok(()));
    let uninvited = Facts { invitations: Vec::new(), ..facts.clone() };
    let alone = MEMBER.belonging_of(&uninvited).expect("the account is there").1;
    assert_ne!(alone, stranger.belonging_of(&uninvited).expect("the account is there").1, "nor where there are none");
}
