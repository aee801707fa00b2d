//! Offer constraints: agents that a framework wants no offers from, by role.
//!
//! An allocator need not know of them: an agent that is excluded is told as filtered for good, and told again whenever
//! filters were cleared or one of the two changed. What is proposed nevertheless is refused.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use tepui_model::allocation::{AgentKey, Fact, FrameworkKey, Holding};
use tepui_model::id::{AgentId, FrameworkId, Role};
use tepui_model::time::Mono;
use tepui_proto::Message as _;
use tepui_proto::v1::scheduler::attribute_constraint::predicate::Predicate;
use tepui_proto::v1::scheduler::attribute_constraint::selector::{PseudoattributeType, Selector};
use tepui_proto::v1::scheduler::{AttributeConstraint, OfferConstraints};
use tepui_proto::v1::{AgentInfo, Attribute, value};
use tepui_view::encode::Visibility;
use tepui_view::{FrameworkRow, View};

use crate::MasterState;
use crate::agent::Agent;

/// Bytes that a compiled pattern may take: enough for what RE2 takes in the 4 KB that Mesos allows.
const PATTERN_SIZE: usize = 256 << 10;

/// A pattern that has to match the whole text.
pub(crate) fn pattern(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(&format!(r"\A(?:{text})\z"))
        .size_limit(PATTERN_SIZE)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "pattern too large - compile failed".to_owned(),
            // The last line of the explanation is its sum.
            other => {
                let text = other.to_string();
                let sum = text.lines().last().unwrap_or_default();
                sum.trim_start_matches("error: ").to_owned()
            }
        })
}

/// What a constraint looks at.
#[derive(Clone, Debug)]
enum Subject {
    Attribute(String),
    Hostname,
    Region,
    Zone,
}

/// What it asks of it.
#[derive(Clone, Debug)]
enum Test {
    Exists(bool),
    Equals(bool, String),
    Matches(bool, Regex),
}

/// What a subject is on an agent.
enum Found<'a> {
    Nothing,
    Text(&'a str),
    /// A number or ranges: every question about text is answered with yes.
    Other,
}

/// Constraints of a framework, compiled. Roles that are not named have none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Constraints(BTreeMap<Role, Vec<Vec<(Subject, Test)>>>);

impl Constraints {
    /// Of constraints that were checked; a part that cannot be read excludes nothing.
    pub(crate) fn of(constraints: &OfferConstraints) -> Self {
        let roles = constraints.role_constraints.iter();
        let compiled = roles.map(|(role, of_role)| {
            let groups = of_role.groups.iter().map(|group| {
                let constraints = group.attribute_constraints.iter();
                constraints.filter_map(compiled).collect()
            });
            (Role::from(role.as_str()), groups.collect())
        });
        Self(compiled.collect())
    }

    fn exclude(&self, role: &Role, agent: &AgentInfo) -> bool {
        let passes = |group: &Vec<(Subject, Test)>| {
            group
                .iter()
                .all(|(subject, test)| test.passes(&subject.found(agent)))
        };
        self.0
            .get(role)
            .is_some_and(|groups| !groups.iter().any(passes))
    }
}

fn compiled(constraint: &AttributeConstraint) -> Option<(Subject, Test)> {
    let subject = match constraint.selector.selector.as_ref()? {
        Selector::AttributeName(name) => Subject::Attribute(name.clone()),
        Selector::PseudoattributeType(number) => {
            match PseudoattributeType::try_from(*number).ok()? {
                PseudoattributeType::Hostname => Subject::Hostname,
                PseudoattributeType::Region => Subject::Region,
                PseudoattributeType::Zone => Subject::Zone,
                PseudoattributeType::Unknown => return None,
            }
        }
    };
    let test = match constraint.predicate.predicate.as_ref()? {
        Predicate::Exists(_) => Test::Exists(true),
        Predicate::NotExists(_) => Test::Exists(false),
        Predicate::TextEquals(test) => Test::Equals(true, test.value.clone()),
        Predicate::TextNotEquals(test) => Test::Equals(false, test.value.clone()),
        Predicate::TextMatches(test) => Test::Matches(true, pattern(&test.regex).ok()?),
        Predicate::TextNotMatches(test) => Test::Matches(false, pattern(&test.regex).ok()?),
    };
    Some((subject, test))
}

impl Subject {
    fn found<'a>(&self, agent: &'a AgentInfo) -> Found<'a> {
        let domain = agent.domain.as_ref();
        let fault = domain.and_then(|domain| domain.fault_domain.as_ref());
        let text = |text: Option<&'a str>| text.map_or(Found::Nothing, Found::Text);
        match self {
            Self::Hostname => Found::Text(&agent.hostname),
            Self::Region => text(fault.map(|fault| fault.region.name.as_str())),
            Self::Zone => text(fault.map(|fault| fault.zone.name.as_str())),
            // Of several attributes with one name the first counts.
            Self::Attribute(name) => {
                let mut attributes = agent.attributes.iter();
                match attributes.find(|attribute| attribute.name == *name) {
                    None => Found::Nothing,
                    Some(Attribute {
                        r#type,
                        text: Some(text),
                        ..
                    }) if *r#type == value::Type::Text as i32 => Found::Text(&text.value),
                    Some(_) => Found::Other,
                }
            }
        }
    }
}

impl Test {
    fn passes(&self, found: &Found<'_>) -> bool {
        match (self, found) {
            (Self::Exists(wanted), found) => *wanted != matches!(found, Found::Nothing),
            // A thing that is not there does not equal, and is not what does not match.
            (Self::Equals(wanted, _) | Self::Matches(wanted, _), Found::Nothing) => !*wanted,
            (Self::Equals(wanted, value), Found::Text(text)) => (value == text) == *wanted,
            (Self::Matches(wanted, regex), Found::Text(text)) => regex.is_match(text) == *wanted,
            (_, Found::Other) => true,
        }
    }
}

/// Agents that a framework's constraints exclude, by role.
pub type Excluded = BTreeMap<Role, Vec<AgentId>>;

/// What the constraints of each framework exclude, as far as the viewer sees frameworks and roles. Walks over all agents
/// for each role with constraints.
#[must_use]
pub fn excluded(view: &View, see: &Visibility) -> Vec<(FrameworkId, Excluded)> {
    let agents = view.agents.iter().filter_map(|agent| {
        let info = AgentInfo::decode(agent.info.clone()).ok()?;
        Some((&agent.id, info))
    });
    let agents: Vec<(&AgentId, AgentInfo)> = agents.collect();
    let frameworks = view.frameworks.iter().map(|framework| &framework.row);
    let frameworks = frameworks.filter(|row| see.frameworks.has(&row.class));
    let of_framework = |row: &FrameworkRow| {
        let message = row.constraints.clone().unwrap_or_default();
        // What was published was accepted before.
        let constraints = OfferConstraints::decode(message).unwrap_or_default();
        let constraints = Constraints::of(&constraints);
        let roles = row.roles.iter().filter(|role| see.roles.has(*role));
        let of_role = |role: &Role| {
            let excluded = agents
                .iter()
                .filter(|(_, info)| constraints.exclude(role, info));
            (
                role.clone(),
                excluded.map(|(id, _)| (*id).clone()).collect(),
            )
        };
        (row.id.clone(), roles.map(of_role).collect())
    };
    frameworks.map(of_framework).collect()
}

impl MasterState {
    /// Whether the framework wants no offers of the agent for the role.
    pub(crate) fn is_excluded(
        &self,
        framework: FrameworkKey,
        role: &Role,
        agent: AgentKey,
    ) -> bool {
        let constraints = &self.frameworks[&framework].excluding;
        constraints.exclude(role, &self.agent_runs[&agent].info)
    }

    /// What an allocator has to be told after these facts, so that it goes on passing over excluded agents.
    pub(crate) fn exclusions(&self, facts: &[Fact]) -> Vec<Fact> {
        let mut told = Vec::new();
        if self.constrained.is_empty() {
            return told;
        }
        for fact in facts {
            match fact {
                Fact::AgentAdded(agent) | Fact::AgentUpdated(agent) => {
                    for framework in &self.constrained {
                        self.exclude(*framework, agent.key, &mut told);
                    }
                }
                Fact::FrameworkAdded(framework) | Fact::FrameworkUpdated(framework)
                    if self.constrained.contains(&framework.key) =>
                {
                    self.exclude_all(framework.key, None, &mut told);
                }
                Fact::FiltersCleared(scope) => match scope.framework {
                    Some(key) if self.constrained.contains(&key) => {
                        self.exclude_all(key, scope.agent, &mut told);
                    }
                    Some(_) => {}
                    None => {
                        for framework in &self.constrained {
                            self.exclude_all(*framework, scope.agent, &mut told);
                        }
                    }
                },
                _ => {}
            }
        }
        told
    }

    fn exclude_all(&self, framework: FrameworkKey, agent: Option<AgentKey>, told: &mut Vec<Fact>) {
        match agent {
            Some(agent) => self.exclude(framework, agent, told),
            None => {
                for agent in self.agent_runs.keys() {
                    self.exclude(framework, agent, told);
                }
            }
        }
    }

    fn exclude(&self, framework: FrameworkKey, agent: AgentKey, told: &mut Vec<Fact>) {
        let announced = |agent: &Agent| agent.announced;
        let Some(owner) = self.frameworks.get(&framework) else {
            return;
        };
        if !self.agent_runs.get(&agent).is_some_and(announced) {
            return;
        }
        let total = &self.agents.get(&agent).expect("rows go with runs").total;
        for role in &owner.roles {
            if self.is_excluded(framework, role, agent) {
                let holding = Holding {
                    framework,
                    role: role.clone(),
                    agent,
                    resources: total.clone(),
                };
                told.push(Fact::Filter(holding, Mono(u64::MAX)));
            }
        }
    }
}
