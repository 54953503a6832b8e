"""What stands on every model card: what holds for all of them, and what is the owner's to say."""

FILL = "*to be filled in by the owner*"

GENERAL = (
    "- The low resolutions above were made by reducing images. Those of cameras have "
    "noise, blur and compression besides, which were not measured.",
    "- It takes aligned faces of 112 px. What it makes of other crops, of faces in part "
    "hidden and of attempts to deceive it was not measured.",
    "- Accuracy depends on the threshold, and the best threshold on both resolutions: one "
    "that was chosen at 112 px does not serve low ones.",
    "- How it does on groups of people was not measured.",
)

USE = f"""## Intended use

Research on face verification across resolutions: comparing methods, and measuring how far down two
images of a face can still be compared. Other uses: {FILL}.

## Out of scope

- Decisions about people that rest on a match alone: identification by police or authorities, access
  to services, work, benefits or borders.
- Surveillance, and searching for people who have not agreed to it.
- Telling feelings, health, origin, faith or any other trait from a face.
- Resolutions, poses and groups of people on which it was not measured (Limits)."""

CONSENT = f"""## Consent and bias

- An embedding of a face is biometric data: in many places the law asks for the person's consent
  before it is made or kept (in the European Union GDPR article 9, in Illinois the BIPA).
- Face recognition errs unequally over age, sex and origin (Grother et al., NIST IR 8280, 2019). Of
  this model the differences are unknown, and so is whether low resolution adds more errors for some
  people than for others; measure both on the people it is meant for first.
- Consent of the people in training and test images: {FILL}."""

LICENCE = f"""## Licence

Of the weights: {FILL}. crfr, the code that made them, is under Apache-2.0; that
covers neither weights nor data, and the terms of the training data may bind the weights too."""

CITATION = f"""## How to cite

The model: {FILL}. The method:

```bibtex
@article{{knoche2022susceptibility,
  title   = {{Susceptibility to Image Resolution in Face Recognition and Training Strategies to
             Enhance Robustness}},
  author  = {{Knoche, Martin and H{{\\"o}}rmann, Stefan and Rigoll, Gerhard}},
  journal = {{Leibniz Transactions on Embedded Systems}},
  volume  = {{8}},
  number  = {{1}},
  year    = {{2022}},
  doi     = {{10.4230/LITES.8.1.1}}
}}
```"""

CONTACT = f"""## Contact

Owner and contact: {FILL}."""
