// What wakes somebody. docs/operations.md says of each what to do; a test compares what is looked for here with what the program
// writes. Application Insights is asked, from outside of the app: a program that has stopped cannot tell of it.

@description('The beginning of the names.')
param name string

@description('Where they are.')
param location string

@description('Their tags.')
param tags object

@description('The Application Insights component.')
param insightsId string

@description('Who gets them by e-mail.')
param emails array

@description('Without a good run for so many minutes there is an alert.')
param quietMinutes int

// The program's log, a line each; and the summaries of runs, a JSON object each, which the host logs when an invocation succeeds.
// Their times are cut to the second: they have nine digits after it, and Kusto's have seven.
var lines = 'traces | where tostring(customDimensions.Category) == "Host.Function.Console"\n'
var runs = 'traces | where tostring(customDimensions.Category) == "Function.SyncNewUsers.User" | extend s = parse_json(message)\n'

// Each is raised by a row that its query finds; those of what is missing, by none. Each looks further back than it was asked last:
// lines arrive minutes after they were written, and one that falls between two windows would be seen by neither.
var alerts = [
  {
    name: 'runs fail'
    description: 'A function has failed three times within an hour.'
    severity: 2
    every: 'PT15M'
    window: 'PT1H'
    missing: false
    of: 'requests\n'
    query: '''
| where name in ("SyncNewUsers", "TakeCensus") and success == false
| summarize failures = count() by name
| where failures >= 3
'''
  }
  {
    name: 'no successful run'
    description: 'Nobody who signs up is brought anywhere: the timer has stopped, each run fails, or something else holds the run lease.'
    severity: 1
    every: 'PT5M'
    window: 'PT${quietMinutes}M'
    missing: true
    of: runs
    query: '''
| where isnotempty(tostring(s.run)) and not(coalesce(tobool(s.busy), false))
'''
  }
  {
    name: 'watermark too old'
    description: 'A detector is more than an hour behind: sign-ups that only it shows are late.'
    severity: 2
    every: 'PT15M'
    window: 'PT1H'
    missing: false
    of: runs
    query: '''
| mv-expand d = s.detectors
| summarize arg_max(timestamp, d) by detector = tostring(d.name)
| where timestamp - todatetime(substring(tostring(d.watermark), 0, 19)) > 1h
'''
  }
  {
    name: 'associations failed'
    description: 'Users could not be brought to a destination, for good.'
    severity: 2
    every: 'PT15M'
    window: 'PT30M'
    missing: false
    of: lines
    query: '''
| where message contains_cs 'msg="association failed; replay it after mending the cause"'
| extend destination = extract('destination=("[^"]*"|[^ ]+)', 1, message), reason = extract('reason=("[^"]*"|[^ ]+)', 1, message)
| summarize users = count() by destination, reason
'''
  }
  {
    name: 'destination left alone'
    description: 'A breaker was open in three different half hours of the last two, or stays so for more than an hour: the destination\'s users wait.'
    severity: 2
    every: 'PT30M'
    window: 'PT2H'
    missing: false
    of: lines
    query: '''
| where message contains_cs 'msg="destination left alone for a while"'
| extend destination = extract('destination=("[^"]*"|[^ ]+)', 1, message), until = todatetime(extract('until=([^ ]+)', 1, message))
| summarize halves = dcount(bin(timestamp, 30m)), until = max(until) by destination
| where halves >= 3 or until > now(1h)
'''
  }
  {
    name: 'throttled for long'
    description: 'A destination, or Microsoft Graph, has throttled calls in at least half of the runs of an hour that asked it: users come later than they need to.'
    severity: 3
    every: 'PT30M'
    window: 'PT1H'
    missing: false
    of: runs
    query: '''
| extend systems = array_concat(coalesce(s.destinations, dynamic([])), pack_array(bag_pack("name", "Microsoft Graph", "throttled", s.graphThrottled)))
| mv-expand d = systems
| summarize throttled = countif(tolong(d.throttled) > 0), asked = count() by system = tostring(d.name)
| where throttled >= 5 and throttled * 2 >= asked
'''
  }
  {
    name: 'certificate expires'
    description: 'The certificate ends within 30 days, or the tenant does not take its newest version.'
    severity: 2
    every: 'PT6H'
    window: 'P2D'
    missing: false
    of: lines
    query: '''
| where message contains_cs 'msg="the certificate expires soon"'
    or message contains_cs 'msg="the newest version of the certificate cannot be used; an older one is used"'
'''
  }
  {
    name: 'census found a gap'
    description: 'Users were missing from the ledger. They are taken in; why no detector has shown them matters.'
    severity: 2
    every: 'PT1H'
    window: 'PT2H'
    missing: false
    of: lines
    query: '''
| where message contains_cs 'msg="users were missing from the ledger and are taken in now"'
'''
  }
  {
    name: 'no census'
    description: 'For two days nobody has proved that everyone is in the ledger.'
    severity: 2
    every: 'PT6H'
    window: 'P2D'
    missing: true
    of: lines
    query: '''
| where message contains_cs 'msg="census done"'
'''
  }
]

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(emails)) {
  name: 'ag-${name}'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: take(name, 12)
    enabled: true
    emailReceivers: [for (address, i) in emails: {
      name: 'person ${i + 1}'
      emailAddress: address
      useCommonAlertSchema: true
    }]
  }
}

resource rules 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for alert in alerts: {
  name: '${name}-${replace(alert.name, ' ', '-')}'
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: '${name}: ${alert.name}'
    description: '${alert.description} See docs/operations.md, "${alert.name}".'
    severity: alert.severity
    enabled: true
    autoMitigate: true
    scopes: [insightsId]
    skipQueryValidation: true // a workspace that has just been made may not know its tables yet, and the deployment would fail
    evaluationFrequency: alert.every
    windowSize: alert.window
    criteria: {
      allOf: [
        {
          query: '${alert.of}${alert.query}'
          timeAggregation: 'Count'
          operator: alert.missing ? 'LessThan' : 'GreaterThan'
          threshold: alert.missing ? 1 : 0
          failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
        }
      ]
    }
    actions: { actionGroups: empty(emails) ? [] : [people.id] }
  }
}]
