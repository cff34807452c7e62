package sim

import (
	"fmt"
	"math/rand/v2"
)

// givenNames and surnames are made up or common; they include what breaks careless programs: accents, hyphens,
// apostrophes, particles, other scripts, and one name that is very long.
var (
	givenNames = []string{"Anna", "Ben", "Zoë", "José", "Anne-Marie", "Łukasz", "D'Arcy", "Søren", "Chloé", "İpek", "Nuño",
		"Ægir", "Дарья", "美咲", "지우", "نور", "Ανδρέας", "Tom", "Mia", "Jean-François", "Þóra", "Ngọc", "Siobhán", "Rumpelstiltskin-Maximiliana-Theodora-Wilhelmine-Konstantina"}
	surnames = []string{"Smith", "O'Brien", "van der Berg", "Müller", "García-López", "Østergård", "Kowalczyk", "de la Cruz",
		"Иванова", "山田", "김", "حداد", "Παπαδόπουλος", "Straße", "St. John", "Nguyễn", "Çelik", "Novák", "Ó Súilleabháin", "Ng",
		"Featherstonehaugh-Cholmondeley-Marjoribanks-Wolfeschlegelstein", "Dvořák", "Smith-Jones", "Åkesson"}
	domains = []string{"example.com", "example.org", "example.net"}
)

// Crowd makes n people of mixed origins: of each hundred about 60 sign up with e-mail and a name, 15 with e-mail alone,
// 12 with a social account, 4 are made by an administrator, 2 are imported and 7 are invited: an external tenant's. The same seed makes the same people.
func Crowd(n int, seed uint64) []Person {
	chance := rand.New(rand.NewPCG(seed, 11))
	people := make([]Person, n)
	for i := range people {
		p := somebody(i, chance)
		given, family := p.GivenName, p.Surname
		switch x := chance.IntN(100); {
		case x < 60:
			p.How = Email
			if chance.IntN(2) == 0 {
				p.DisplayName = given + " " + family
			}
		case x < 75:
			p.How, p.GivenName, p.Surname = Email, "", ""
		case x < 87:
			p.How, p.DisplayName = Social, given+" "+family
			p.IdP = []string{"Google", "Facebook", "Apple"}[chance.IntN(3)]
		case x < 91:
			p.How = Admin
		case x < 93:
			p.How, p.Attributes = Migration, map[string]any{"requiresMigration": true}
		default:
			p.How, p.DisplayName = Guest, given+" "+family
		}
		if (p.How == Email || p.How == Social) && chance.IntN(10) < 7 {
			p.Attributes = map[string]any{"marketingOptIn": chance.IntN(2) == 0}
		}
		people[i] = p
	}
	return people
}

// Partners makes n people who come into a workforce tenant: of each hundred about 40 join by a verified e-mail address, 30
// are invited, 20 ask for an access package, and 10 are made by an administrator. The same seed makes the same people.
func Partners(n int, seed uint64) []Person {
	chance := rand.New(rand.NewPCG(seed, 12))
	people := make([]Person, n)
	for i := range people {
		p := somebody(i, chance)
		switch x := chance.IntN(100); {
		case x < 40:
			p.How = EmailVerified
		case x < 70:
			p.How, p.DisplayName = Guest, p.GivenName+" "+p.Surname
		case x < 90:
			p.How, p.DisplayName = Requested, p.GivenName+" "+p.Surname
		default:
			p.How = Admin
		}
		people[i] = p
	}
	return people
}

// somebody is the ith person, by name and address.
func somebody(i int, chance *rand.Rand) Person {
	given, family := givenNames[chance.IntN(len(givenNames))], surnames[chance.IntN(len(surnames))]
	return Person{GivenName: given, Surname: family, Email: fmt.Sprintf("person%d@%s", i+1, domains[chance.IntN(len(domains))])}
}
