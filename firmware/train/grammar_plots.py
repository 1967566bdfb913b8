"""Templates of the story grammar; the language is described in `grammar.py`."""

from __future__ import annotations

MACROS: dict[str, list[str]] = {
    "once": [
        "Once upon a time, there was a {size} {hero.kind} named {hero}.",
        "Once upon a time, there was a {size} {hero.kind} named {hero}.",
        "Once upon a time, there was a {trait} {hero.kind} named {hero}.",
        "Once upon a time, there lived a {size} {hero.kind} named {hero}.",
        "Once upon a time, a {trait} {hero.kind} named {hero} lived {home}.",
        "There was once a {trait} {hero.kind} named {hero}.",
        "{Hero} was a {size} {hero.kind} who lived {home}.",
        "{Hero} was a {trait} {hero.kind}.",
        "Long ago, a {size} {hero.kind} named {hero} lived {home}.",
        "In a small village, there was a {size} {hero.kind} named {hero}.",
    ],
    "end": [
        "{Hero} was very happy.",
        "{Hero} smiled all the way home.",
        "It was a good day.",
        "It was the best day ever.",
        "{Hero} went to bed with a big smile.",
        "That night, {hero} slept very well.",
        "{Hero} felt warm and happy inside.",
        "{Hero} never forgot that day.",
    ],
    "ends": [
        "From that day on, {hero} and {pal} were best friends.",
        "They played together every day.",
        "They both felt very happy.",
        "They laughed and went home together.",
        "{Hero} and {pal} were friends for ever.",
        "And they lived happily ever after.",
        "It was a good day for {hero} and {pal}.",
    ],
    "sad": [
        "{Hero} was [very|so] sad.",
        "{Hero} felt sad.",
        "{Hero} began to cry.",
        "{Hero} sat down and cried.",
    ],
    "thanks": [
        '"Thank you, {pal}," said {hero}.',
        '"Thank you so much!" {hero} said.',
        "{Hero} thanked {pal} and gave {pal.him} a [big |]hug.",
        '"You are very kind," said {hero}.',
    ],
    "meet": [
        "Then a {pal.kind} named {pal} came by.",
        "Just then, {pal.full} came along.",
        "{Pal.full} saw {hero.him}.",
        "{Hero} met a {trait2} {pal.kind} named {pal}.",
    ],
    "ask": [
        '"[Why are you sad|What is wrong|Are you okay|Can I help you]?" asked {pal}.',
        '{Pal} asked, "[Why are you sad|What is wrong|What happened|Can I help you]?"',
    ],
    "friendpair": [
        "{Hero} had a friend, {pal.full}.",
        "{Hero.his} best friend was a {pal.kind} named {pal}.",
        "{Hero} and {pal.full} were good friends.",
    ],
    "likes": [
        "{Hero} loved to play {place2.at}.",
        "{Hero} liked {food2.some} more than anything.",
        "{Hero} had a {color} {toy}.",
        "{Hero} loved {skill.doing}.",
        "{Hero} loved to look at the {beast2}s.",
        "{Hero} wanted to see the world.",
        "{Hero.his} best friend was {hero.his} {elder}.",
        "Everyone liked {hero}.",
        "{Hero} always wore a {color} {clothes}.",
    ],
    "episode": [
        "{Hero} saw a {beast} under a tree. It was hungry, so {hero} gave it a {food}.",
        "{Hero} found a {treasure} on the ground. {Hero.he} put it in {hero.his} bag.",
        "A {stray} sat on a [rock|leaf|branch]. {Hero} said hello to it, and it looked at {hero.him}.",
        "The sun was [hot|warm], so {hero} sat down [in the shade|under a tree] and ate a {food}.",
        "{Hero} heard {noise}. It was only a {stray}. {Hero} laughed.",
        "The wind blew {hero.his} {clothes} away. {Hero} ran and ran until {hero.he} caught it.",
        "{Hero} picked {number} flowers for {hero.his} {elder}.",
        "{Hero} made a small house of sticks. It was a good house for a {stray}.",
        "It began to rain. {Hero} jumped in the puddles and sang a song.",
        "{Hero} saw {sight}. {Hero.he} had never seen anything so pretty.",
        "{Hero} tried to climb a tree, but it was too tall. So {hero.he} sat under it and rested.",
        "{Hero} helped an old {beast} cross the road. The old {beast} thanked {hero.him}.",
        "{Hero} lost {hero.his} shoe in the mud. {Hero.he} had to hop home on one foot.",
        "{Hero} wanted a {food}, but it was too high. A {beast} got it down for {hero.him}.",
        "{Hero} looked for {hero.his} {toy}. It was {hiding}.",
        "{Hero} was tired and took a nap. {Hero.he} dreamed of a {color} {beast}.",
    ],
    "together": [
        "{Hero} and {pal} played {game} until they were tired.",
        'They saw {sight}. "Look!" said {pal}. "It is beautiful."',
        "{Pal} had a {food}. {Pal.he} gave half of it to {hero}.",
        "{Hero} fell down and hurt {hero.his} knee. {Pal} helped {hero.him} up.",
        "They made a {building} of {building.of}. It was very big.",
        'They found a {treasure}. "You can have it," said {hero}.',
        "Then it began to rain, so they hid {hiding}.",
        "They heard {noise}. They were afraid, but it was only a {stray}.",
        "{Pal} told a funny story. {Hero} laughed and laughed.",
        "They sang a song about a {color} {beast}.",
        "They met a {stray} and gave it some food.",
        "They were hungry, so they ate {food.some} and drank some milk.",
        "{Hero} showed {pal} how to {skill}.",
    ],
    "talk": [
        '"Hello, my name is {pal}," said {pal}. "What is your name?" "My name is {hero}," said {hero}.',
        '"Where are you going?" asked {pal}. "I am going {place.to}," said {hero}. "Do you want to come?"',
        '"Do you want to play with me?" asked {hero}. "Yes, I do," said {pal}.',
        '"I like your {clothes}," said {pal}. "Thank you," said {hero}. "My {elder} made it."',
        '"I am hungry," said {pal}. "I have a {food}," said {hero}. "We can share it."',
        '"Can you {skill}?" asked {pal}. "No, but I want to learn," said {hero}.',
    ],
    "elderly": [
        "{Hero.his} {elder} made {dish} for dinner.",
        '"It is time to go home," said {hero.his} {elder}. {Elder.he} carried {hero.him}.',
        "{Hero.his} {elder} told {hero.him} a story about a {color} {beast2}.",
        '"I love you," said {hero.his} {elder}. "I love you too," said {hero}.',
        "They bought a {toy2} for {hero}.",
        '{Hero} gave {hero.his} {elder} a {gift}. "Thank you, {hero}," {elder.he} said.',
    ],
}

PLOTS: list[str] = [
    # A toy is lost and found again.
    """{once} {Hero} had a {color} {toy}. {Hero.he} loved [it very much|to play with it|it more than
    anything]. {day}, {hero} could not find the {toy}. {Hero.he} looked [in the house|in the yard|under the
    bed|everywhere], but it was not there. {sad} {meet} {ask} "I lost my {toy}," said {hero}. ["I will help
    you look," said {pal}.|"Let us look together," said {pal}.] They looked and looked. [At last|Then|Soon],
    {pal} found the {toy} {hiding}. {thanks} [{ends}|{end}]""",
    # A toy is stuck high up; a friend gets it down.
    """{once} {Hero} [liked|loved] to play with {hero.his} {color} {flying} {place.at}. {day}, the wind took
    the {flying} and it got stuck {high.on}. {Hero} [jumped and jumped|tried to reach it|tried to climb up],
    but {hero.he} was too [small|short]. {sad} {meet} {ask} "My {flying} is stuck {high.on}," said {hero}.
    {Pal} [found a long stick|climbed up slowly|got a ladder] and [got|took] the {flying} down. {thanks}
    {ends}""",
    # Something floats away.
    """{once} {day}, {hero} went {place.to} with {hero.his} {color} {floating}. {Hero.he} put it in the water.
    The {floating} [went far away|went away with the water|began to float away]. "Oh no!" {hero} cried. "Come
    back!" {Pal.full} was [swimming there|sitting in a small boat|on the other side]. {Pal.he} [took|caught]
    the {floating} and gave it back to {hero}. {thanks} "You are welcome," said {pal}. {ends}""",
    # Sharing food.
    """{once} {day}, {hero} had [one|a big] {food}. {Hero.he} wanted to eat it [all by {hero.him}self|at
    once|under a tree]. {meet} {Pal} looked [hungry|very hungry|sad]. "I have no food," said {pal}. {Hero}
    thought [about it|for a moment|hard]. Then {hero.he} [cut|broke] the {food} [in two|in half] and gave [one
    part|half] to {pal}. "Thank you," said {pal}. "It is [so good|very sweet|yummy]!" They ate together [under
    a tree|in the sun|and talked]. {Hero} learned that [it is good to share|food tastes better with a
    friend|sharing makes friends].""",
    # Would not share, then does.
    """{once} {Hero} had a [new|big|nice] {color} {toy}. {Hero.he} did not want to share it. {day}, {pal.full}
    asked, "Can I play with your {toy}?" "No, it is mine!" said {hero}. {Pal} was sad and went away. {Hero}
    played [alone|all alone|by {hero.him}self], but it was not fun. {Hero.he} felt [bad|sorry|lonely]. So
    {hero.he} went to {pal} and said, "I am sorry. [Let us play together|You can play with my {toy}|We can
    share it]." {Pal} smiled. [They took turns with the {toy}.|They played all day.] Now {hero} [likes|loves]
    to share.""",
    # A shy one finds a friend.
    """{once} {Hero} was [very |]shy and had no friends. {day}, {hero} saw {pal.full} {place.at}. {Pal} was
    playing [alone|with a {toy}]. {Hero} wanted to play too, but {hero.he} was [afraid|too shy] to ask. {Pal}
    saw {hero.him} and [smiled|waved]. "Hello! I am {pal}. Do you want to play with me?" "Yes, please," said
    {hero}. They played {game} until [the sun went down|it was dark|dinner time]. {ends}""",
    # Rain.
    """{once} {day}, {hero} and {pal.full} were playing {place.at}. [Then|Soon|All of a sudden,] it
    [began|started] to rain. "[Oh no, we will get wet|Run|We must go]!" said {pal}. They ran and hid [under a
    big tree|in an old barn|under a big leaf|in a small cave]. They [told funny stories|sang a song|sat close
    together] and waited. [At last|Soon] the rain stopped and the sun came out. "Look, a rainbow!" said
    {hero}. [They jumped in the puddles and laughed.|It had many colors.|It was very pretty.] {ends}""",
    # Learning a skill.
    """{once} {Hero} wanted to learn to {skill}. {day}, {hero.he} went to {skill.at} [to try|with {hero.his}
    {elder}]. {Hero} tried, but [{hero.he} fell down|it was too hard|{hero.he} could not do it]. "I can not do
    it," {hero.he} said. "[Do not give up|Try again|You can do it]," said {hero.his} {elder}. So {hero} tried
    again [and again|the next day|every day]. [At last|Then one day|Soon], {hero} {skill.did} [very well|all
    by {hero.him}self]! "I did it!" {hero.he} said. {Hero.his} {elder} was [proud|very proud] of {hero.him}.
    {end}""",
    # A small animal is hurt.
    """{once} {day}, {hero} found a {stray} {place.at}. It was [hurt|cold and hungry|all alone|lost]. "Poor
    little one," said {hero}. {Hero.he} took it home in {hero.his} [hands|hat|arms|basket]. {Hero.his} {elder}
    gave it [water|warm milk|some food] and made a [small|soft] bed. {Hero} [took care of it|fed it] every
    day. [Soon|After a few days], the {stray} was [well|strong] again. "It is time to say goodbye," said
    {hero.his} {elder}. {Hero} let it go. [The {stray} looked back and was happy.|{Hero} was a little sad, but
    also happy.] [{end}|The next day, it came back to play with {hero}.]""",
    # Something breaks; the truth is told.
    """{once} {day}, {hero} was playing [in the house|in the kitchen|inside] with a {toy}. {Hero.he} was not
    careful. Crash! The {color} {fragile} fell and broke. {Hero} was [afraid|scared|worried]. {Hero.he} wanted
    to hide it. But then {hero.he} went to {hero.his} {elder} and said, "I am sorry. I broke the {fragile}."
    {Hero.his} {elder} [was not angry|hugged {hero.him}|smiled]. "Thank you for telling [me |]the truth,"
    {elder.he} said. They [cleaned up|fixed it with glue] together. {Hero} learned that [it is good to tell
    the truth|telling the truth is best].""",
    # A birthday.
    """{once} Today was {hero.his} birthday. But no one said anything. {sad} "[They forgot my birthday|No one
    remembers]," {hero.he} thought. {Hero} went {place.to} and sat there alone. [In the evening|Later],
    {hero.he} came home. It was dark. Then the light came on. "Surprise!" said {pal.full} and all the friends.
    There was a big cake and a {color} {toy}. "[Happy birthday, {hero}|We did not forget you]!" said {pal}.
    {Hero} was so happy that {hero.he} [laughed and danced|jumped up and down|gave everyone a hug]. It was the
    best birthday ever.""",
    # A race.
    """{once} {Hero} could run [very |so ]fast. {day}, {hero} and {pal.full} had a race {place.at}. "One, two,
    three, go!" They ran and ran. {Hero} was first. Then {pal} [fell down|hurt {pal.his} foot] and could not
    get up. {Hero} stopped and [went|ran] back. "[Are you okay|Are you hurt], {pal}?" {hero.he} asked. {Hero}
    helped {pal} walk, and they [finished|came to the end] together. ["You did not win," said {pal}. "But you
    are a good friend."|"We both won," said {hero}.] {ends}""",
    # The slow one wins.
    """{once} {Hero} was slow, and {pal.full} was fast. ["You are too slow!" said {pal}.|{Pal} laughed at
    {hero}.] {day}, they had a race {place.at}. {Pal} ran fast and was far ahead. "I can take a nap," {pal.he}
    said, and {pal.he} went to sleep. {Hero} did not stop. {Hero.he} [went on and on|walked and walked]. When
    {pal} woke up, {hero} was at the end. {Hero} won the race! {Pal} was [surprised|sorry]. "[You never gave
    up|I was wrong]," said {pal}. They became good friends.""",
    # A seed grows.
    """{once} {day}, {hero.his} {elder} gave {hero.him} a {seed} seed. {Hero} put it in the ground [in the
    garden|near the house]. {Hero.he} gave it water every day. [For many days|At first], nothing
    [happened|came up]. "[Be patient|You must wait]," said {hero.his} {elder}. {Hero} waited and waited. Then
    one morning, {hero.he} saw a little green leaf. It grew and grew. [Soon|In the summer], there was a big
    {seed.grown}! {Hero} [showed it to {hero.his} {elder}|shared it with {hero.his} friends|danced around it].
    {Hero} learned to [wait|be patient].""",
    # The dark and a noise.
    """{once} {Hero} was afraid of the dark. One night, {hero.he} heard {noise} [at the window|outside|at the
    door]. {Hero} [hid under the bed|pulled the blanket up|called {hero.his} {elder}]. "What is that?"
    {hero.he} asked. {Hero.his} {elder} came with a [small |]light. "Let us look together," {elder.he} said.
    They opened the [door| window] and saw {source}. {Source.why}. {Hero} laughed. "[It was only {source}|I am
    not scared now]," {hero.he} said. After that, {hero} was not afraid of the dark.""",
    # Cooking.
    """{once} {day}, {hero} wanted to make {dish} for {hero.his} {elder}. {Pal.full} came to help. They [put
    everything in a big pot|mixed and mixed|made a big mess]. [There was flour on the floor and on {pal.his}
    nose.|Some of it fell on the floor.|{Pal} put in too much salt.] They [looked at each other and |]laughed.
    When {hero.his} {elder} came home, {elder.he} [was surprised|smiled]. "[This smells good|What a nice
    surprise]!" {elder.he} said. They [all |]ate the {dish} together. Then they [cleaned|washed] [the
    kitchen|everything]. {end}""",
    # Lost and found the way home.
    """{once} {day}, {hero} went for a walk in the [woods|forest]. {Hero.he} followed a [pretty |little
    ]butterfly and did not look back. Soon {hero.he} was lost. "Where is my home?" {hero} [cried|asked].
    {meet} {ask} "I am lost. I want to go home," said {hero}. "Do not worry. I know the way," said {pal}.
    {Pal} took {hero.his} hand, and they walked [past the big tree|over the bridge|along the river]. [Soon|At
    last], {hero} saw {hero.his} home. {Hero.his} {elder} ran out and hugged {hero.him}. {thanks} {end}""",
    # A treasure and its owner.
    """{once} {day}, {hero} found a [shiny|small|pretty] {treasure} {place.at}. "[How pretty|What a nice
    {treasure}|I am so lucky]!" {hero.he} said. Then {hero} saw {pal.full}. {Pal} was [crying|looking for
    something]. "I lost my {treasure}. My {elder} gave it to me," said {pal}. {Hero} wanted to keep it, but
    {hero.he} knew [it was not right|that it was not {hero.his}]. "Here it is," said {hero}. "I found it
    {place.at}." {Pal} was so happy. "[Thank you|You are a good friend]," said {pal}. {ends}""",
    # A toy is mended.
    """{once} {Hero.his} {toy} was old and broken. {sad} "I can not play with it," {hero.he} said. {Hero.his}
    {elder} looked at the {toy}. "We can fix it," {elder.he} said. They got [some glue|a hammer|some
    string|some tape] and worked [all day|for a long time|together]. Then they painted it {color}. [It looked
    like new.|Now it was better than before.] "[Thank you|It is so pretty]!" said {hero}. {Hero.he} played
    with the {toy} [all day|until it was time for bed]. {end}""",
    # Building something, the wind takes it.
    """{once} {day}, {hero} and {pal.full} wanted to build a {building}. They got some {building.of} and
    worked [hard|all morning]. [The {building} was very tall.|It was a big {building}.] Then [the wind blew|a
    big dog ran by|{pal} made a wrong step], and the {building} fell down. "Oh no!" said {hero}. {sad} "Do not
    be sad," said {pal}. "We can build it again." So they [worked together|tried again]. This time, the
    {building} was [strong and tall|even better|even bigger]. {ends}""",
    # Hide and seek.
    """{once} {friendpair} {day}, they played hide and seek {place.at}. {Hero} closed {hero.his} eyes and
    counted to ten. {Pal} hid {hiding}. {Hero} looked [and looked|here and there|everywhere], but {hero.he}
    could not find {pal.him}. "Where are you, {pal}?" {hero.he} called. Then {hero} heard [a laugh|a little
    sound|a sneeze]. {Hero.he} looked {hiding}. "I found you!" said {hero}. They [both |]laughed. "Now it is
    your turn," said {pal}. {ends}""",
    # A gift for a sick friend.
    """{once} {day}, {hero} heard that {pal.full} had {sick}. {Pal} had to stay in bed. {Hero} wanted to help.
    {Hero.he} made a {gift} and [some |a pot of ]soup. Then {hero.he} walked to {pal.his} house. "How are you,
    {pal}?" asked {hero}. "[I feel bad|I am so bored|Not so good]," said {pal}. {Hero} gave {pal.him} the
    {gift} and [read a story|sang a song|sat by the bed]. {Pal} [smiled|felt better]. ["You are the best
    friend," said {pal}.|"Thank you for coming," said {pal}.] The next [day|week], {pal} was well and they
    played {game}.""",
    # A wish on a star.
    """{once} {Hero} wanted a friend. Every night, {hero.he} looked at the stars. One night, {hero} saw a star
    fall from the sky. {Hero.he} closed {hero.his} eyes and [made a wish|wished very hard]. The next morning,
    a {trait2} {pal.kind} named {pal} came to the door. "[Hello|Good morning]," said {pal}. "Do you want to be
    my friend?" {Hero} [jumped with joy|smiled]. "Yes!" {hero.he} said. {ends}""",
    # Stage fright.
    """{once} {Hero} loved to play the {instrument}. {day}, there was a big show {place.at}. Everyone came to
    see it. {Hero} looked at all the people and was [scared|afraid|very shy]. "I can not do it," {hero.he}
    said. {Pal.full} took {hero.his} hand. "[Look at me and play|You can do it|I will stand with you]," said
    {pal}. {Hero} [took a deep breath|closed {hero.his} eyes] and played the {instrument}. It was
    [beautiful|so good]. Everyone clapped. "[Thank you, {pal}|I did it]!" said {hero}. {end}""",
    # A trip.
    """{once} {day}, {hero} and {hero.his} {elder} went on a trip [by {vehicle}|in a {color} {vehicle}].
    {Hero} looked out and saw {sight}. "Look!" {hero.he} said. Then the {vehicle} stopped. [It was broken.|It
    did not move.] {Hero} was [worried|sad]. A {pal.kind} named {pal} came [to help|by]. {Pal.he} pushed [and
    pushed|hard], and the {vehicle} began to move again. "Thank you, {pal}," said {hero}. "[Come with us|Do
    you want to come too]?" {Pal} [was happy to come|said yes]. They [all |]had [a nice|a great] trip and saw
    {sight2} too. {end}""",
    # Cleaning, with help.
    """{once} {day}, {hero} had to {job}. It was [a lot of|hard] work. {Hero} [did not want to do it|was
    tired|wanted to play]. {meet} "[What are you doing|Do you want to play]?" asked {pal}. "I can not play. I
    have to {job}," said {hero}. "I can help you," said {pal}. "Then we can play." They [worked together|sang
    and worked], and the work was done [fast|soon]. Then they played {game} {place.at}. {Hero} learned that
    work is [easy|fun] with a friend.""",
    # Angry words and sorry.
    """{once} {friendpair} {day}, they both wanted the same {color} {toy}. "It is mine!" said {hero}. "No, it
    is mine!" said {pal}. They pulled and pulled, and the {toy} broke. They were angry and went home. At home,
    {hero} [felt bad|could not sleep|was lonely]. {Hero.his} {elder} said, "A friend is better than a {toy}."
    The next day, {hero} went to {pal}. "I am sorry," said {hero}. "I am sorry too," said {pal}. They fixed
    the {toy} together and [took turns|played]. {ends}""",
    # A greedy one gets a tummy ache.
    """{once} {Hero} loved cookies. {day}, {hero.his} {elder} made a big plate of cookies. "They are for
    everyone," said {hero.his} {elder}. "Do not eat them all." But {hero} ate one, and one more, and then all
    of them. Soon {hero.his} tummy hurt. {Hero} [lay down|began to cry]. "I am sorry," {hero.he} said. "I ate
    too much." {Hero.his} {elder} gave {hero.him} [some tea|a hug|some water]. "Next time, you will share,"
    {elder.he} said. The next day, {hero} gave cookies to {pal.full}. [That felt much better.|They ate
    together and were happy.]""",
    # Mud and a bath.
    """{once} {Hero} loved to play in the mud. {day}, {hero.he} jumped in a big puddle. Splash! {Hero} was
    brown from head to toe. {Hero} went home. "Who are you?" asked {hero.his} {elder}. "It is me, {hero}!"
    {hero.he} said. {Hero.his} {elder} laughed. "You need a bath," {elder.he} said. {Hero} did not like
    [baths|water]. But the water was warm, and there were many bubbles. {Hero} played with a {toy} in the
    bath. Soon {hero.he} was clean. "That was fun," said {hero}. {end}""",
    # Too heavy for one.
    """{once} {day}, {hero} found a [very big|huge] pumpkin {place.at}. {Hero.he} wanted to take it home, but
    it was too heavy. {Hero} pushed, but it did not move. {meet} {Pal} pushed too, but it did not move. Then a
    little mouse came. "You are too small," said {hero}. "Let me try," said the mouse. They all pushed
    together. [One, two, three!|They pushed very hard.] The pumpkin began to roll. They rolled it home and
    made [soup|a pie|a big soup] for everyone. {Hero} learned that [even a small friend can help|together we
    are strong].""",
    # The kind deed returns.
    """{once} {day}, {hero} saw {pal.full} in a [net|hole|thorny bush]. "Help me!" cried {pal}. {Hero} was
    [small|afraid], but {hero.he} helped {pal} get out. "Thank you. One day I will help you," said {pal}.
    [Many days later|The next week], {hero} fell into the [river|lake]. {Hero.he} could not swim. "Help!"
    {hero.he} called. {Pal} heard {hero.him} and [ran|came] fast. {Pal.he} pulled {hero} out of the water.
    "You helped me, and now I helped you," said {pal}. {ends}""",
    # Bedtime.
    """{once} It was late, and {hero} could not sleep. {Hero.he} [turned left and right|looked at the moon|was
    not tired]. {Hero.he} asked {hero.his} {elder} for [some water|a story|a song]. {Hero.his} {elder} told
    {hero.him} a story about a {color} {beast} who [lived on the moon|could fly|sailed over the sea]. {Hero}
    listened. {Hero.his} eyes grew heavy. "[Good night|Sweet dreams], {hero}," said {hero.his} {elder}. {Hero}
    [hugged {hero.his} {toy}|closed {hero.his} eyes] and fell asleep. {Hero.he} dreamed of the {color}
    {beast}.""",
    # Shopping with one coin.
    """{once} {Hero} had one coin. {day}, {hero.he} went to the [shop|market] to buy a {toy}. On the way,
    {hero.he} met {pal.full}. {Pal} [was hungry|had nothing to eat]. {Hero} looked at {hero.his} coin.
    {Hero.he} wanted the {toy} very much. But {hero.he} bought [bread|some food] and gave it to {pal}. "[Thank
    you|You are so kind]," said {pal}. When {hero} came home, {hero.his} {elder} heard what {hero.he} did. "I
    am proud of you," {elder.he} said. The next day, {hero.his} {elder} gave {hero.him} a {color} {toy}.
    {end}""",
    # Looking different.
    """{once} {Hero} had [big ears|a long nose|big feet|a funny hat]. The others laughed at {hero.him}. {sad}
    {day}, {pal.full} fell into a deep hole. No one could [reach {pal.him}|get {pal.him} out]. "[Wait|I can
    help]," said {hero}. {Hero.he} [found a long rope|lay down and held out a long stick] and pulled {pal}
    out. Everyone cheered. "[We are sorry that we laughed|You are a hero]," they said. {Hero} smiled.
    {ends}""",
    # A new hat in the wind is a bird's home.
    """{once} {Hero} had a new {color} hat. {day}, the wind took it away. {Hero} ran after it, but the hat was
    gone. {Hero.he} looked here and there. At last, {hero.he} saw the hat in a tree. There was a bird in it,
    with {number} eggs. "This is my home now," said the bird. {Hero} thought about it. "You can keep it,"
    {hero.he} said. Soon there were {number} baby birds. {Hero} came to see them every day. They sang a song
    for {hero.him}. {end}""",
    # Snow.
    """{once} One cold morning, {hero} looked out of the window. Everything was white. "Snow!" {hero.he}
    [said|cried]. {Hero} put on {hero.his} {clothes} and ran outside. {Pal.full} was there too. They made a
    big snowman with a carrot for a nose. "He looks cold," said {pal}. So {hero} gave the snowman {hero.his}
    {clothes}. They played in the snow until they were cold. Then {hero.his} {elder} made [hot milk|warm soup]
    for them. {ends}""",
    # Moving away and a letter.
    """{once} {friendpair} {day}, {pal} said, "I have to move far away." {sad} They hugged and said goodbye.
    Many days went by. {Hero} missed {pal}. Then a letter came. "[Dear {hero}, I miss you. Please come and see
    me|I have a new home {place.at}. Please come]," it said. {Hero} and {hero.his} {elder} took a
    [train|bus|boat] to see {pal}. When {pal} saw {hero.him}, {pal.he} [ran to {hero.him}|jumped with joy].
    They played {game} all day. Far away or near, they were always friends.""",
    # The first day at school.
    """{once} Today was {hero.his} first day at school. {Hero} [held {hero.his} {elder}'s hand|did not want to
    go|was very shy]. "[What if no one likes me|I do not know anyone]," {hero.he} said. At school, {pal.full}
    sat [next to {hero.him}|alone too]. "Do you want to see my {toy}?" asked {pal}. {Hero} nodded. They [drew
    pictures|sang songs|played {game}] all [day|morning]. When {hero.his} {elder} came, {hero} did not want to
    go home. "[School is fun|I have a new friend]!" {hero.he} said. {ends}""",
    # A big animal is not so bad.
    """{once} {day}, {hero} saw a big {beast} {place.at}. {Hero} was [scared|afraid] and hid {hiding}. The
    {beast} came [near|closer and closer]. "Please do not [eat|hurt] me," said {hero}. "I will not hurt you,"
    said the {beast}. "I only want [a friend|to play|some {food.some}]." {Hero} came out and [smiled|said
    hello]. They played {game}. The {beast} was [kind|gentle|very funny]. {Hero} learned that big does not
    mean bad.""",
    # Fishing.
    """{once} {day}, {hero} and {hero.his} {elder} went fishing {place.at}. They sat [for a long time|very
    still] and waited. Then {hero} [felt a pull|caught a fish]. It was a [small|shiny|golden] fish! "Please
    let me go," said the fish. "I want to see my [mom|family|friends]." {Hero} looked at {hero.his} {elder}.
    "[Let it go|It is your fish]," {elder.he} said. {Hero} put the fish back in the water. The fish [jumped
    up|swam away] and was happy. {Hero} and {hero.his} {elder} ate {food.some} for lunch. {end}""",
    # Clouds.
    """{once} {day}, {hero} and {pal.full} lay in the grass and looked at the sky. "That cloud looks like a
    {beast}," said {hero}. "No, it looks like a {beast2}," said {pal}. They [laughed|looked again]. Then a big
    [gray|dark] cloud came. "That one looks like rain," said {hero}. [Plop|Drip]! A drop fell on {pal.his}
    nose. They ran home and [watched the rain|drank warm milk]. {ends}""",
    # A picnic.
    """{once} {day}, {hero} and {pal.full} had a picnic {place.at}. They had {food.some} and {food2.some}.
    Then they [saw {number} ants|heard a small voice]. A little ant said, "[We are so hungry.|May we eat with
    you?]" {Hero} [put a crumb on a leaf|gave the ants some {food.some}]. The ants [danced|said thank you and
    took it home]. Later, {pal} lost {pal.his} {treasure} in the grass. The ants looked for it and found it.
    "[Small friends are good friends|Thank you, ants]," said {pal}. {ends}""",
    # The moon in the water.
    """{once} One night, {hero} saw the moon in the [pond|lake]. "The moon fell into the water!" {hero.he}
    said. "I must help it." {Hero} tried to get the moon out with a [net|stick|big spoon], but {hero.he} could
    not. {Pal.full} came by and laughed. "Look up," said {pal}. {Hero} looked up and saw the moon in the sky.
    "[It is safe|You got it out]!" said {hero}. They sat [by the water|together] and looked at the [two
    moons|moon and the stars]. {ends}""",
    # A lost thing was there all the time.
    """{once} {day}, {hero.his} {elder} could not find {elder.his} {lost}. "Where is my {lost}?" {elder.he}
    asked. {Hero} wanted to help. {Hero.he} looked {hiding}, but it was not there. {Hero.he} looked in the
    kitchen, but it was not there. Then {hero} looked at {hero.his} {elder} and laughed. "{Lost.where},"
    {hero.he} said. {Hero.his} {elder} laughed too. "[Silly me|What would I do without you]," {elder.he} said.
    {end}""",
    # A drawing.
    """{once} {Hero} loved to [draw|paint]. {day}, {hero.he} made a picture of a {color} {beast}. {Hero}
    showed it to {pal.full}. "[It does not look right|A {beast} is not {color}]," said {pal}. {sad} But
    {hero.his} {elder} put the picture on the wall. "I love it," {elder.he} said. "You made it with your
    heart." The next day, {pal} came to see it again. "I am sorry. It is [pretty|nice]," said {pal}. "Can you
    teach me?" So they made {number} pictures together. {end}""",
    # Fireflies or a bug in a jar.
    """{once} One [warm |summer ]night, {hero} caught a little light in a jar. It was a firefly. {Hero} took
    it home and put it by the bed. But the light grew [weak|small]. "[Why is it sad|What is wrong]?" {hero.he}
    asked. {Hero.his} {elder} said, "It misses [the sky|its friends|its home]." {Hero} [opened the window|went
    outside] and let it go. The firefly flew up, and soon there were many lights. [They danced in the dark|It
    looked like the stars came down]. {end}""",
    # A new baby.
    """{once} {day}, {hero.his} {elder} said, "We have a new baby." {Hero} [was not happy|felt left out]. The
    baby cried all [day|night], and no one had time for {hero}. [Then|One evening,] the baby cried and cried.
    No one could stop it. {Hero} [made a funny face|sang a little song|showed the baby a {toy}]. The baby
    stopped and laughed! "[You are the best|The baby loves you]," said {hero.his} {elder}. {Hero} was proud.
    Now {hero.he} [sings|plays with the baby] every day.""",
    # One who boasts.
    """{once} {Hero} always said, "I am the best!" {Hero.he} said it to everyone. {day}, {pal.full} asked,
    "Can you {skill}?" "Of course I can," said {hero}. But it was not true. They went to {skill.at}. {Hero}
    tried, but {hero.he} fell down. {Hero} was [sorry|red in the face]. "I can not do it," {hero.he} said.
    {Pal} did not laugh. "I will teach you," {pal.he} said. Soon {hero} [could do it too|{skill.did}]. After
    that, {hero} [did not say that {hero.he} was the best|helped others too]. {ends}""",
    # A boat in a storm.
    """{once} {Hero} had a small {color} boat. {day}, {hero} and {pal.full} went out on the sea. The sky grew
    dark, and the waves grew big. "I am scared," said {pal}. "Hold my hand," said {hero}. A big whale saw
    them. "[Do not be afraid|I will help you]," said the whale. It pushed the boat back to the [beach|land].
    "Thank you, whale!" they said. [They gave the whale a song.|The whale made a big splash and went away.]
    {ends}""",
    # A bridge for two.
    """{once} {day}, {hero} walked over a small bridge. {Pal.full} came from the other side. The bridge was
    too small for two. "[Go back|I was first]," said {hero}. "No, you go back," said {pal}. They stood there
    [all morning|for a long time]. Then {hero} [had an idea|thought about it]. "[I will lie down, and you can
    walk over me|I will go back, and you can go first]," {hero.he} said. "Thank you," said {pal}. "Next time,
    I will wait for you." {ends}""",
    # Spilt milk.
    """{once} {day}, {hero} wanted to carry the milk all by {hero.him}self. "Be careful," said {hero.his}
    {elder}. But {hero} [ran too fast|looked at a {beast}] and fell. The milk was all over the floor. {sad}
    "It is okay," said {hero.his} {elder}. "We can clean it up." A [cat|kitten] came and drank some of the
    milk. {Hero} laughed. The next time, {hero} walked slowly and did not spill a drop. {Hero.his} {elder} was
    proud of {hero.him}.""",
    # A magic stone.
    """{once} {day}, {hero} found a magic stone {place.at}. "I can give you one wish," said the stone. {Hero}
    thought of a [big cake|new {toy}|big house]. Then {hero.he} saw {pal.full}. {Pal} [was sick|had no
    home|could not walk]. {Hero} held the stone and said, "I wish that {pal} [is well and happy|has all that
    {pal.he} needs]." [The stone shone|There was a bright light], and {pal} [smiled|jumped up]. "You did not
    wish for yourself," said the stone. "So I will stay with you." {ends}""",
    # A pet of one's own.
    """{once} {Hero} [wanted a pet|asked for a pet every day]. {day}, {hero.his} {elder} came home with a [big
    |]box. There was a sound in the box. {Hero} opened it and saw a {stray}! "[Is it for me|Can we keep it]?"
    {hero.he} asked. "Yes, but you must take care of it," said {hero.his} {elder}. {Hero} named it {pal}.
    {Hero.he} gave it food and water every [day|morning]. At night, {pal} slept [near|next to] {hero.him}.
    {ends}""",
    # A warm thing for a cold one.
    """{once} It was a cold [day|night]. {Hero} had a warm {color} {clothes}. {Hero.he} saw {pal.full} [under
    a tree|near the road]. {Pal} was cold and had no {clothes}. {Hero} thought, "[I can run to keep warm|My
    home is near]." So {hero.he} gave {pal.him} the {clothes}. "Thank you," said {pal}. "[I am warm now|You
    are so kind]." When {hero} came home, {hero.his} {elder} gave {hero.him} [hot soup|a big hug]. {end}""",
    # One who does not listen.
    """{once} "Do not go {place.to} alone," said {hero.his} {elder}. But {hero} did not listen. {day},
    {hero.he} went {place.to} alone. {Hero.he} [fell and hurt {hero.his} foot|fell into a hole|got stuck in
    the mud]. "Help!" cried {hero}. {Pal.full} heard {hero.him} and ran to get {hero.his} {elder}. They took
    {hero.him} home. "I am sorry," said {hero}. "I will listen next time." {Hero.his} {elder} hugged
    {hero.him}. {thanks}""",
    # Days made of small events.
    """{once} {day}, {hero.he} went {place.to}. {episode} {episode} {end}""",
    """{once} {friendpair} {day}, they went {place.to}. {together} {together} {ends}""",
    """{once} {likes} {day}, {hero.he} went {place.to} with {hero.his} {elder}. {episode} {elderly} {end}""",
    """{once} {likes} {episode} {meet} {talk} {together} {ends}""",
    """{once} {likes} {day}, {hero.he} met {pal.full} {place.at}. {talk} {together} {together} {ends}""",
    """{once} One morning, {hero} woke up early. {episode} Then {hero.he} went {place.to}. {episode} In the
    evening, {hero.he} told {hero.his} {elder} about it. {end}""",
]
