"""Who may become a member: rules of an operator, device certificates, a hook that is asked, conduct that is watched."""
