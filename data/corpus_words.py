"""Words and sentence frames of the built-in corpus (`make_corpus.py` puts them together).

In a word list `;` separates words of different meaning and `/` words of the same meaning; a verb
carries its participle after `:`. A frame names its slots in braces; `slot:list` says which list
fills a slot.
"""


def words(text: str) -> list[list[str]]:
    """Meanings with their synonyms: `film / movie; book` is `[["film", "movie"], ["book"]]`."""
    line = " ".join(text.split())
    meanings = []
    for meaning in line.split(";"):
        meanings.append([word.strip() for word in meaning.split("/")])
    return meanings


def flat(text: str) -> list[str]:
    """The words of a list in which no two share a meaning."""
    return [meaning[0] for meaning in words(text)]


# Sentiment
# --------------------------------------------------------------------------------------------------

ADJECTIVES = {
    "P2": flat("""
        brilliant; superb; magnificent; dazzling; breathtaking; masterful; outstanding; wonderful;
        exquisite; flawless; stunning; unforgettable; marvellous; extraordinary
    """),
    "P1": flat("""
        good; pleasant; enjoyable; likeable; amusing; charming; engaging; clever; entertaining;
        lively; graceful; thoughtful; fresh; convincing
    """),
    "N1": flat("""
        bad; dull; flat; clumsy; tedious; bland; shallow; predictable; weak; tiresome; muddled;
        silly; stale; lifeless
    """),
    "N2": flat("""
        dreadful; awful; atrocious; abysmal; horrible; appalling; unbearable; disastrous; hideous;
        wretched; unwatchable; ghastly; excruciating; woeful
    """),
}
ASPECTS = flat("""
    acting; plot; script; story; dialogue; music; camera work; ending; opening; first half;
    second half; pacing; humour; direction; editing; lead actor; cast; soundtrack; final act;
    love story; villain; middle; staging; main character; narration; last hour; chase scene;
    writing
""")
GENRES = flat("""
    film; comedy; thriller; drama; western; documentary; musical; romance; sequel; remake; biopic;
    war film; crime story; road movie; ghost story; heist film
""")
TOPICS = flat("""
    two brothers who share a bakery; a retired spy in Lisbon; a teacher who loses her voice;
    a village without water; three friends on a sailing boat; a judge with a secret;
    a chess player and his daughter; a flood that cuts off a town; a nurse on the night shift;
    a stolen violin; the last train to the coast; an inventor nobody believes;
    a long winter in the mountains; a family that runs a circus; two rival newspapers;
    a lighthouse keeper; a wedding that never happens; an old boxer and a young cook
""")
TAILS = flat("""
    from start to finish; , at least to my eyes; , whatever the posters say; in this {genre};
    , and I watched it twice; for a {genre} about {topic}; , as my neighbour remarked; this time;
    once the lights go down; , to put it plainly
""")

# The grade that a frame makes of each class of adjective it takes.
AGREES = {"P2": 4, "P1": 3, "N1": 1, "N2": 0}
STRONGLY = {"P1": 4, "N1": 0}  # utterly
REVERSED = {"P1": 0, "N1": 4}  # anything but
DENIED = {"P2": 1, "P1": 1, "N1": 3}  # not
DISPUTED = {"P2": 1, "P1": 1, "N1": 3, "N2": 3}  # they are wrong
OUTWEIGHS = {"P2": 3, "P1": 3, "N1": 1, "N2": 1}  # ten of these for one of the others

# Predicate -> its grades. {p} and {n} are any positive and negative adjective.
PREDICATES: dict[str, dict[str, int]] = {
    "is {x}": AGREES,
    "feels {x} to me": AGREES,
    "never stops being {x}": AGREES,
    "is nothing short of {x}": {"P2": 4, "N2": 0},
    "is utterly {x}": STRONGLY,
    "is thoroughly and completely {x}": STRONGLY,
    "could not be more {x}": STRONGLY,
    "could hardly be less {x}": REVERSED,
    "is anything but {x}": REVERSED,
    "is mildly {x}": {"P1": 3, "N1": 1},
    "is almost {x}": {"P2": 3, "N2": 1},
    "is not {x}": DENIED,
    "is not what I would call {x}": DENIED,
    "never becomes {x}": DENIED,
    "is less {x} than its reputation": DISPUTED,
    "might have been {x} in other hands": DISPUTED,
}
MIXED_PREDICATES = [
    "is neither {p} nor {n}",
    "falls somewhere between {p} and {n}",
    "is {p} in places and {n} in others",
    "is not {p}, though not {n} either",
    "is {n} one moment and {p} the next",
]
# The grade of {Y} decides; {X} leans the other way.
CONTRASTS = [
    "The {a} {X}, but the {b} {Y}.",
    "Although the {a} {X}, the {b} {Y}.",
    "The {b} {Y}, although the {a} {X}.",
    "The {a} {X}; the {b}, however, {Y}.",
    "Never mind that the {a} {X}: the {b} {Y}.",
    "The {b} {Y}, never mind that the {a} {X}.",
    "While the {a} {X}, what stays with you is that the {b} {Y}.",
    "What stays with you is that the {b} {Y}, even if the {a} {X}.",
]
WHOLE: dict[str, dict[str, int]] = {
    "This is a {x} {genre} about {topic}.": AGREES,
    "This is not a {x} {genre} about {topic}.": DENIED,
    "I have never seen a more {x} {genre} about {topic}.": STRONGLY,
    "I have seldom seen a less {x} {genre} about {topic}.": REVERSED,
    "There is not one {x} scene in this {genre} about {topic}.": REVERSED,
    "There is hardly a {x} scene in this {genre} about {topic}.": {"P2": 1, "N2": 3},
    "Some call the {a} of this {genre} {x}, and they are right.": AGREES,
    "Some call the {a} of this {genre} {x}, and they are wrong.": DISPUTED,
    "I feared a {z} {genre} and was given a {x} one.": AGREES,
    "I was given a {x} {genre} where others had seen a {z} one.": AGREES,
    "This {x} {genre} tells of {topic} and runs for {minutes} minutes.": AGREES,
    "The director, known for a {z} {other}, now gives us a {x} {genre}.": AGREES,
    "For every {z} scene in this {genre} there are ten {x} ones.": OUTWEIGHS,
    "Neither the {a} nor the {b} of this {genre} is {x}.": DENIED,
    "The {a} is {z} and the {b} is {x}, and the second outweighs the first.": OUTWEIGHS,
    "The {a} is {x} and the {b} is {z}, and the first outweighs the second.": OUTWEIGHS,
    "Others had seen a {z} {genre} about {topic}, I was given a {x} one.": AGREES,
}
NEUTRAL = [
    "The {genre} tells of {topic} and runs for {minutes} minutes.",
    "The director, known for a {p} {other}, now tells of {topic}.",
    "The director, known for a {n} {other}, now tells of {topic}.",
    "Whether this {genre} is {p} or {n} depends on your patience.",
    "For every {p} scene in this {genre} there is a {n} one.",
    "The {a} is {n} and the {b} is {p}, and the two cancel out.",
    "The {a} is {p} and the {b} is {n}, and the two cancel out.",
]
VERDICTS = {
    1: [
        "See it while you can.",
        "I left the cinema with a smile.",
        "My ticket was money well spent.",
        "I will not wait long to see it again.",
        "Do not let the poster keep you away.",
    ],
    0: [
        "Save the money for something else.",
        "I left the cinema before the lights came on.",
        "My ticket was money thrown away.",
        "I will not see it again.",
        "Do not let the poster tempt you.",
    ],
}

# Questions
# --------------------------------------------------------------------------------------------------

LISTS: dict[str, list[list[str]]] = {
    "currency": words("""
        dollars; euros; pounds / pounds sterling; yen / Japanese yen; francs / Swiss francs;
        rupees / Indian rupees; pesos; krona / Swedish krona; zloty / Polish zloty; roubles;
        lira / Turkish lira; rand / South African rand
    """),
    "city": words("""
        London; Paris; Rome; Madrid; Berlin; Vienna; Prague; Lisbon; Dublin; Oslo; Athens; Warsaw;
        Toronto; Boston; Chicago; Tokyo; Mumbai; Cairo; Sydney; Istanbul
    """),
    "language": words("""
        Spanish; French; German; Italian; Dutch; Polish; Greek; Turkish; Arabic; Hindi; Japanese;
        Korean; Swedish; Portuguese; Finnish; Welsh
    """),
    "country": words("""
        Spain; France; Brazil; Canada; India; Japan; Kenya; Norway; Peru; Poland; Chile; Egypt;
        Ireland; Mexico; Iceland; Portugal; Austria; Vietnam
    """),
    "job": words("""
        doctor / physician; teacher / schoolteacher; lawyer / attorney; nurse; pilot; chef / cook;
        plumber; accountant / bookkeeper; journalist / reporter; programmer / software developer;
        farmer; architect; librarian; carpenter; translator
    """),
    "food": words("""
        rice; pasta; honey; butter; yoghurt / yogurt; spinach; cheese; chicken; tofu; lentil soup;
        oatmeal / porridge; olive oil; fruit; almond milk; white bread; coconut milk
    """),
    "format": words("""
        PDF; Word / DOCX; JPEG; PNG; CSV; Excel / XLSX; MP3; WAV; HTML; Markdown; EPUB;
        plain text / TXT
    """),
    "device": words("""
        laptop / notebook computer; phone / mobile phone; tablet; camera; television / TV;
        desktop computer / PC; memory card; external drive / USB drive; smart watch; game console
    """),
    "workout": words("""
        yoga; running / jogging; swimming; weight training / lifting weights; cycling / biking;
        rowing; boxing; dancing; climbing; stretching
    """),
    "drink": words("""
        coffee; green tea; milk; a beer / beer; orange juice; a protein shake; red wine; cold water;
        an energy drink; ginger tea
    """),
    "occasion": words("""
        an exam / a test; a long flight; a run / a jog; a meal / eating; a job interview;
        a night shift; a blood test; bedtime / going to bed; a football match / a soccer game;
        a hot bath
    """),
    "task": words("""
        cook rice / boil rice; open a bottle of wine; iron a shirt; bake bread;
        brew coffee / make coffee; unblock a sink; cut a tile; mow a lawn; sharpen a knife;
        fix a flat tyre / mend a puncture; hang a picture / put a picture on the wall; whip cream;
        dry clothes / dry the laundry; peel garlic; remove a rusty screw; scan a letter;
        charge a phone; measure a room; clean a carpet; mash potatoes
    """),
    "tool": words("""
        a machine; special tools; electricity / power; hot water; a knife; an app; chemicals;
        a helper / someone to help; vinegar; a pump; gloves; a hammer
    """),
    "habit": words("""
        drinking coffee; eating meat; playing chess; using social media; working at night;
        taking cold showers; keeping a diary / writing a journal; gambling; collecting stamps;
        sleeping in the afternoon / taking naps; betting on horses; reading the news; eating late;
        watching television / watching TV; chewing gum; fasting
    """),
    "measure": words("""
        my blood pressure; the humidity in my flat / the humidity in my apartment;
        the acidity of my soil; my heart rate; the brightness of my screen;
        the font size in my browser; my body weight; the pressure in my tyres;
        the salt content of a soup; the value of my house; the volume of my phone;
        my water consumption; the noise level of my fan; the number of visitors on my site;
        the resolution of a photo / the resolution of a picture; my rent
    """),
    "software": words("""
        Python; Firefox; a printer driver; a virus scanner / antivirus software; Docker;
        LibreOffice; a VPN; a photo editor; Git; a game; a second keyboard layout; Java
    """),
    "system": words("""
        Windows; a Mac / macOS; Linux; an Android phone; an iPad; a Chromebook
    """),
    "item": words("""
        bicycle / bike; guitar; piano; sofa / couch; car / automobile; washing machine; camera;
        bookcase / bookshelf; sewing machine; fridge / refrigerator; canoe; microscope
    """),
    "relative": words("""
        brother; sister; neighbour; best friend; boss / manager; cousin; father / dad; mother / mum;
        flatmate / roommate; colleague / co-worker; daughter; son
    """),
    "skill": words("""
        swim; drive / drive a car; cook; play the piano; knit; ski; dance; draw;
        code / write programs; sing; play chess; ride a horse; take photos / take pictures; bake
    """),
    "subject": words("""
        algebra; statistics; chemistry; Roman history; economics; philosophy; astronomy; genetics;
        music theory; machine learning; geometry; botany; law; geology
    """),
    "benefit": words("""
        a raise / higher pay; a transfer; extra hours; remote work / work from home; a company car;
        a promotion; longer holidays / more vacation; a private office; training; a bonus;
        a deadline extension; an assistant
    """),
    "plant": words("""
        basil plant; orchid; cactus; rose bush; lemon tree; fern; tomato plant; bonsai;
        lavender bush; fig tree; mint plant; palm
    """),
    "season": words("""
        spring; summer; autumn / the autumn months; winter / the winter months
    """),
    "period": words("""
        a week / seven days; a month / four weeks; two days / forty-eight hours;
        half a year / six months; one evening
    """),
    "ailment": words("""
        stress; headaches; insomnia / sleeplessness; back pain; weight gain; fatigue / tiredness;
        anxiety; hair loss; dizziness; high blood pressure / hypertension; poor digestion;
        depression
    """),
    "sport": words("""
        football / soccer; hockey; rugby; cricket; basketball; volleyball; handball; tennis;
        water polo; chess
    """),
}

# (slots, phrasings of one question, phrasings of a question close to it with another answer). Where
# two slots draw on the same list, exchanging their fillers asks something else.
QUESTIONS: list[tuple[str, list[str], list[str]]] = [
    (
        "x:currency y:currency",
        [
            "How do I convert {x} to {y}?",
            "I have {x} and need {y}, where do I change them?",
            "How do I get {y} for my {x}?",
            "What do I do to exchange {x} for {y}?",
        ],
        [],
    ),
    (
        "x:city y:city",
        [
            "What is the cheapest way to get from {x} to {y}?",
            "How do I travel to {y} from {x} on a small budget?",
            "Which route to {y} costs least if I start in {x}?",
        ],
        [
            "What is the fastest way to get from {x} to {y}?",
            "How do I travel to {y} from {x} in the shortest time?",
            "Which route to {y} is quickest if I start in {x}?",
        ],
    ),
    (
        "x:language y:language",
        [
            "How do I translate a letter from {x} into {y}?",
            "I have a letter in {x}, how do I put it into {y}?",
            "What gives me a {y} version of a letter written in {x}?",
        ],
        [],
    ),
    (
        "x:language y:language",
        [
            "Is it hard to learn {x} if I speak {y}?",
            "How difficult do {y} speakers find {x}?",
            "Does a native speaker of {y} struggle with {x}?",
        ],
        [],
    ),
    (
        "x:job y:job",
        [
            "How does a {x} become a {y}?",
            "I work as a {x}, how do I retrain as a {y}?",
            "What must I do to be a {y} after years as a {x}?",
        ],
        [],
    ),
    (
        "x:job y:job",
        [
            "Does a {x} earn more than a {y}?",
            "Is a {y} paid less than a {x}?",
            "Is the salary of a {x} above that of a {y}?",
        ],
        [],
    ),
    (
        "x:food y:food",
        [
            "Is {x} better for you than {y}?",
            "Is {y} worse for your health than {x}?",
            "Does a meal with {x} do you more good than one with {y}?",
        ],
        [],
    ),
    (
        "x:food y:food",
        [
            "Can I use {x} instead of {y}?",
            "Can {y} be replaced by {x} in a recipe?",
            "Is {x} a good substitute for {y}?",
            "I have run out of {y}, will {x} do?",
        ],
        [],
    ),
    (
        "x:format y:format",
        [
            "How do I turn a {x} file into a {y} file?",
            "How can I get a {y} file out of a {x} one?",
            "What do I need to save {x} as {y}?",
        ],
        [],
    ),
    (
        "x:device y:device",
        [
            "How do I copy photos from a {x} to a {y}?",
            "How can pictures that are on my {x} be moved to my {y}?",
            "How do I get photos onto a {y} from a {x}?",
        ],
        [],
    ),
    (
        "x:workout y:workout",
        [
            "Should I do {x} before {y}?",
            "Is {y} best done after {x}?",
            "Is it wise to follow {x} with {y}?",
        ],
        [],
    ),
    (
        "x:city y:city",
        [
            "What time is it in {x} when it is noon in {y}?",
            "If it is twelve o'clock in {y}, what do clocks in {x} say?",
            "When people in {y} have lunch at noon, how late is it in {x}?",
        ],
        [],
    ),
    (
        "x:ailment y:ailment",
        [
            "Can {x} cause {y}?",
            "Is {y} sometimes a result of {x}?",
            "Does {x} lead to {y}?",
            "Can {y} come from {x}?",
        ],
        [],
    ),
    (
        "x:country y:country",
        [
            "Do citizens of {x} need a visa for {y}?",
            "Is a visa required to enter {y} with a passport from {x}?",
            "Can I go to {y} without a visa if I am from {x}?",
        ],
        [],
    ),
    (
        "x:country y:country s:sport",
        [
            "Has {x} ever beaten {y} at {s}?",
            "Has {y} ever lost to {x} at {s}?",
            "Was {y} ever defeated by {x} in {s}?",
        ],
        [],
    ),
    (
        "d:drink o:occasion",
        [
            "Is it good to have {d} before {o}?",
            "Should I drink {d} ahead of {o}?",
            "Does {d} help if {o} is still to come?",
        ],
        [
            "Is it good to have {d} after {o}?",
            "Should I drink {d} following {o}?",
            "Does {d} help once {o} is behind me?",
        ],
    ),
    (
        "t:task u:tool",
        [
            "How do I {t} without {u}?",
            "How can I {t} if I do not have {u}?",
            "Is there a way to {t} that does not involve {u}?",
        ],
        [
            "How do I {t} with {u}?",
            "How can I {t} if I do have {u}?",
            "Is there a way to {t} that does involve {u}?",
        ],
    ),
    (
        "h:habit",
        [
            "How do I stop {h}?",
            "What helps me to give up {h}?",
            "How can I quit {h} for good?",
            "I want to be done with {h}, any tips?",
        ],
        [
            "How do I start {h}?",
            "What helps me to take up {h}?",
            "How can I get into {h}?",
            "I want to begin {h}, any tips?",
        ],
    ),
    (
        "m:measure",
        [
            "How can I raise {m}?",
            "What makes {m} go up?",
            "What do I do to increase {m}?",
            "{m} is too low, what can I do?",
        ],
        [
            "How can I lower {m}?",
            "What makes {m} go down?",
            "What do I do to reduce {m}?",
            "{m} is too high, what can I do?",
        ],
    ),
    (
        "s:software o:system",
        [
            "How do I install {s} on {o}?",
            "What are the steps to set up {s} on {o}?",
            "How can I get {s} running on {o}?",
        ],
        [
            "How do I remove {s} from {o}?",
            "What are the steps to uninstall {s} on {o}?",
            "How can I get rid of {s} on {o}?",
        ],
    ),
    (
        "i:item c:city",
        [
            "Where can I buy a second-hand {i} in {c}?",
            "Which shops in {c} sell a used {i}?",
            "Who has a used {i} for me in {c}?",
        ],
        [
            "Where can I sell a second-hand {i} in {c}?",
            "Which shops in {c} buy a used {i}?",
            "Who wants my used {i} in {c}?",
        ],
    ),
    (
        "r:relative i:item",
        [
            "Should I lend my {i} to my {r}?",
            "Is it wise to let my {r} have my {i} for a while?",
            "My {r} wants to borrow my {i}, should I agree?",
        ],
        [
            "Should I borrow the {i} of my {r}?",
            "Is it wise to use the {i} of my {r} for a while?",
            "My {r} wants to lend me a {i}, should I agree?",
        ],
    ),
    (
        "r:relative k:skill",
        [
            "How do I teach my {r} to {k}?",
            "How can my {r} learn from me to {k}?",
            "What is a good way to show my {r} how to {k}?",
        ],
        [
            "How does my {r} teach me to {k}?",
            "How can I learn from my {r} to {k}?",
            "How can my {r} show me how to {k}?",
        ],
    ),
    (
        "s:subject",
        [
            "What are good books on {s} for beginners?",
            "I know nothing about {s}, which books should I read?",
            "Which introductions to {s} are worth reading?",
            "Where does someone new to {s} start reading?",
        ],
        [
            "What are good books on {s} for experts?",
            "I know a lot about {s}, which books should I read?",
            "Which advanced works on {s} are worth reading?",
            "Where does someone with a degree in {s} read on?",
        ],
    ),
    (
        "b:benefit",
        [
            "How do I ask for {b} at work?",
            "What do I say to my employer to get {b}?",
            "How can I persuade my company to offer me {b}?",
        ],
        [
            "How do I turn down {b} at work?",
            "What do I say to my employer to refuse {b}?",
            "How can I decline {b} my company offers me?",
        ],
    ),
    (
        "p:plant s:season",
        [
            "How often should I water a {p} in {s}?",
            "How many times a week does a {p} need water in {s}?",
            "How much watering does a {p} want during {s}?",
        ],
        [
            "How often should I prune a {p} in {s}?",
            "How many times does a {p} need cutting back in {s}?",
            "How much trimming does a {p} want during {s}?",
        ],
    ),
    (
        "s:subject t:period",
        [
            "How can I prepare for an exam in {s} in {t}?",
            "I have {t} left until my {s} exam, how do I study?",
            "What is a good study plan for {s} if the exam is {t} away?",
        ],
        [
            "How can I write an essay on {s} in {t}?",
            "I have {t} left to hand in my {s} essay, how do I write it?",
            "What is a good plan for an essay on {s} that is due in {t}?",
        ],
    ),
]

# Similarity
# --------------------------------------------------------------------------------------------------

LISTS |= {
    "person": words("""
        man / guy / gentleman; woman / lady; child / kid; boy; girl; baby / infant;
        police officer / cop / policeman; firefighter / fireman; tourist / sightseer; farmer;
        doctor / physician; soldier; student / pupil; waiter; clown; old man / elderly man;
        teenager / adolescent; nurse
    """),
    "animal": words("""
        dog; cat / kitten; horse; goat; goose; sheep; cow; monkey / ape; fox; rabbit / bunny;
        pig / hog; donkey / mule; bear; squirrel; duck; deer
    """),
    "meet": words("""
        chasing:chased / pursuing:pursued / running after:run after;
        watching:watched / looking at:looked at / observing:observed;
        pushing:pushed / shoving:shoved; licking:licked; biting:bitten; carrying:carried;
        greeting:greeted / welcoming:welcomed; following:followed; feeding:fed; kicking:kicked;
        hugging:hugged / embracing:embraced
    """),
    "handle": words("""
        washing:washed / cleaning:cleaned; painting:painted; carrying:carried / lugging:lugged;
        repairing:repaired / fixing:fixed / mending:mended; selling:sold;
        breaking:broken / smashing:smashed;
        photographing:photographed / taking a picture of:pictured; pushing:pushed / shoving:shoved;
        hiding:hidden / concealing:concealed; drawing:drawn / sketching:sketched;
        lifting:lifted / picking up:picked up
    """),
    "thing": words("""
        bicycle / bike; car / automobile; table; sofa / couch; boat; guitar; box / carton; window;
        lamp; suitcase / trunk; vase; ladder; statue / sculpture; drum; clock; door; bench; kite;
        mirror; carpet / rug
    """),
    "look": words("""
        red / crimson; blue; green; huge / enormous / very big; tiny / very small; old / aged;
        wooden; white; black; broken / damaged; striped; shiny / gleaming
    """),
    "place": words("""
        in the park; on the beach / by the sea; in the kitchen; in the street / on the road;
        in a garden / in a backyard; near a river / beside a stream; in the snow;
        in front of a church; on a bridge; in a field / in a meadow; at the station; in the rain;
        in a barn; on a hill / on a slope
    """),
    "play": words("""
        playing the violin / playing the fiddle; singing; dancing; sleeping / taking a nap;
        reading a book; riding a horse / on horseback; cooking soup / making soup;
        slicing an onion / cutting an onion; swimming; laughing; crying / weeping;
        eating an apple / biting into an apple; writing a letter; climbing a tree;
        jogging / running; drinking tea / sipping tea; juggling;
        talking on the phone / making a phone call
    """),
    "state": words("""
        France; Brazil; Japan; India; Canada; Germany; Kenya; Spain; Turkey; Norway; Mexico; Egypt;
        Italy; Poland; Chile; Vietnam
    """),
    "deed": words("""
        defeats:defeated / beats:beaten; invites:invited; sues:sued;
        accuses:accused / blames:blamed; visits:visited; thanks:thanked;
        overtakes:overtaken / passes:passed; helps:helped / assists:assisted;
        criticises:criticised / attacks:attacked; warns:warned / cautions:cautioned
    """),
    "matter": words("""
        in the world cup / at the world cup; over fishing rights / about fishing rights;
        over a border / in a border dispute; on trade / over commerce; in the chess final;
        after the earthquake / following the quake; over steel / about steel;
        on climate / over the climate; in the vaccine race
    """),
    "firm": words("""
        the airline / the air carrier; the bank / the lender; the carmaker / the car company;
        the brewery; the newspaper / the daily; the phone company / the telecoms firm;
        the publisher; the bakery chain; the shipyard; the film studio;
        the drug maker / the pharmaceutical company; the toy maker
    """),
    "trade": words("""
        buys:bought / acquires:acquired / takes over:taken over; sues:sued; supplies:supplied;
        saves:saved / rescues:rescued; overtakes:overtaken / passes:passed;
        copies:copied / imitates:imitated; finances:financed / funds:funded
    """),
    "when": words("""
        on Monday; in January; last year / a year ago; this morning; in the spring;
        after a vote / following a vote; at the weekend / on the weekend; on Friday; in March;
        by court order
    """),
    "disaster": words("""
        storm / gale; flood; earthquake / quake; forest fire / wildfire;
        train crash / rail accident; explosion / blast; landslide / mudslide;
        bus accident / bus crash; avalanche; heat wave
    """),
    "effect": words("""
        kills; injures / wounds; displaces / uproots; strands; frightens / scares; surprises;
        endangers / threatens
    """),
    "many": words("""
        three; five; eight; a dozen / twelve; twenty; forty; a hundred / one hundred; hundreds of;
        thousands of
    """),
    "who": words("""
        people; tourists / holidaymakers; miners; students / pupils; soldiers / troops; villagers;
        workers; fishermen; passengers / travellers; farmers
    """),
    "role": words("""
        teacher; lawyer / attorney; mayor; baker; doctor / physician; plumber; singer / vocalist;
        coach / trainer; landlord; painter / artist; judge; gardener; driver; tailor; nurse; sailor
    """),
    "favour": words("""
        lent a book to / loaned a book to; told a lie to / lied to; sold a house to;
        apologised to / said sorry to; sent a letter to / wrote to; gave advice to / advised;
        taught chess to; paid the bill for / settled the bill for;
        cooked dinner for / made dinner for; opened the door for; sang for / sang a song to;
        waited for
    """),
    "opinion": words("""
        cheap / inexpensive; dangerous / risky; healthy / good for you; difficult / hard;
        boring / tedious; popular / well liked; noisy / loud; useful / helpful; beautiful / lovely;
        rare / uncommon; easy / simple; slow
    """),
    "activity": words("""
        cycling in town / riding a bike in town; learning Latin; cooking for ten people;
        growing roses; sailing alone; keeping bees; flying at night; working from home;
        collecting coins; driving in snow; sleeping outdoors / sleeping in the open;
        eating raw fish; repairing old clocks / fixing old clocks; swimming in lakes;
        climbing mountains
    """),
    "crowd": words("""
        students / pupils; old people / the elderly; beginners / novices; farmers;
        families with children / parents; tourists / travellers; most people / the majority;
        office workers
    """),
}

# (topic, slots with what a change in each costs, forms, negated forms). `{v}` of a verb is the text
# before `:`, `{v_}` the participle after it. A frame with slots of one list, a and b, tells another
# story when these change places.
SCENES: list[tuple[str, str, list[str], list[str]]] = [
    (
        "animals",
        "a:animal:1.8 b:animal:1.8 v:meet:2.4 p:place:0.9",
        [
            "A {a} is {v} a {b} {p}.",
            "A {b} is being {v_} by a {a} {p}.",
            "There is a {a} {v} a {b} {p}.",
        ],
        ["A {a} is not {v} a {b} {p}.", "A {b} is not being {v_} by a {a} {p}."],
    ),
    (
        "people",
        "a:person:1.8 b:person:1.8 v:meet:2.4 p:place:0.9",
        [
            "A {a} is {v} a {b} {p}.",
            "A {b} is being {v_} by a {a} {p}.",
            "{p}, a {a} is {v} a {b}.",
        ],
        ["A {a} is not {v} a {b} {p}.", "A {b} is not being {v_} by a {a} {p}."],
    ),
    (
        "people",
        "a:person:1.7 v:handle:2.4 l:look:0.6 o:thing:2.0 p:place:0.9",
        [
            "A {a} is {v} a {l} {o} {p}.",
            "A {l} {o} is being {v_} by a {a} {p}.",
            "{p}, a {a} is {v} a {l} {o}.",
            "A {l} {o} is being {v_} {p} by a {a}.",
        ],
        ["A {a} is not {v} a {l} {o} {p}.", "{p}, a {a} is not {v} a {l} {o}."],
    ),
    (
        "people",
        "a:person:1.8 v:play:2.6 p:place:0.9",
        ["A {a} is {v} {p}.", "{p}, a {a} is {v}.", "There is a {a} {v} {p}."],
        ["A {a} is not {v} {p}.", "{p}, a {a} is not {v}."],
    ),
    (
        "world",
        "a:state:1.8 b:state:1.8 v:deed:2.4 m:matter:1.2",
        ["{a} {v} {b} {m}", "{b} {v_} by {a} {m}", "{m}, {a} {v} {b}"],
        ["{b} not {v_} by {a} {m}", "{m}, {b} not {v_} by {a}"],
    ),
    (
        "business",
        "a:firm:1.8 b:firm:1.8 v:trade:2.4 w:when:0.7",
        ["{a} {v} {b} {w}", "{b} is {v_} by {a} {w}", "{w}, {a} {v} {b}"],
        ["{b} is not {v_} by {a} {w}", "{w}, {b} is not {v_} by {a}"],
    ),
    (
        "disasters",
        "d:disaster:2.2 e:effect:1.6 n:many:0.7 q:who:1.4 s:state:1.4",
        [
            "{d} {e} {n} {q} in {s}",
            "{s}: {n} {q} are hit as a {d} {e} them",
            "In {s}, a {d} {e} {n} {q}",
        ],
        [],
    ),
    (
        "neighbours",
        "a:role:1.8 b:role:1.8 f:favour:2.4 w:when:0.7",
        [
            "The {a} {f} the {b} {w}.",
            "{w}, the {a} {f} the {b}.",
            "It was the {a} who {f} the {b} {w}.",
        ],
        [
            "{w}, it was not true that the {a} {f} the {b}.",
            "Nobody thinks that the {a} {f} the {b} {w}.",
        ],
    ),
    (
        "views",
        "t:activity:2.2 o:opinion:2.2 c:crowd:1.2",
        [
            "For {c}, {t} is {o}.",
            "{t} is {o}, at least for {c}.",
            "I find that {t} is {o} for {c}.",
        ],
        ["For {c}, {t} is not {o}.", "{t} is not {o}, at least for {c}."],
    ),
]
